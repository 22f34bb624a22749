"""Goes through a compiled pipeline as KFP's backend does; each step runs in this process, or as it is told.

What holds on a cluster (Kubernetes 1.36, KFP 2.17, Argo 4.0.8) holds here: a step whose pod died or ended with an error
is not run again; what waits for it is left out, and the run fails; other trials of its round still end; an exit task
runs in any case; a condition that is false leaves out what is inside it, and what waits for the whole goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp.dsl.executor import Executor

from tests.helpers.kfp_server import KfpServer

Values = dict[str, Any]


class PodDied(Exception):  # noqa: N818  (what happened)
    """The step's pod was killed: its process has no last word."""


@dataclass(frozen=True)
class Step:
    """A step that is about to run."""

    name: str
    run: str
    """Id of the run."""
    number: int
    """Of this name in this run, counted from 0."""


@dataclass(frozen=True)
class Task:
    """What KFP's launcher is given for a step."""

    label: str
    """By which the platform's settings name it."""
    container: Values
    component: Values
    parameters: Values
    artifacts: Values
    scope: Values
    """Parameters of the graph that the step is in, by which the platform's settings name theirs."""
    folder: Path
    """Where its outputs go."""

    def executor_input(self) -> Values:
        """The launcher's word to the step's program: the inputs that are its own, and where its outputs go."""
        declared, outputs = self.component.get("inputDefinitions", {}), self.component.get("outputDefinitions", {})
        defaults = {
            key: one["defaultValue"] for key, one in declared.get("parameters", {}).items() if "defaultValue" in one
        }
        known = {k: v for k, v in (defaults | self.parameters).items() if k in declared.get("parameters", {})}
        taken = {k: {"artifacts": v} for k, v in self.artifacts.items() if k in declared.get("artifacts", {})}
        made = {
            key: {
                "artifacts": [{"name": key, "uri": str(self.folder / key), "type": one["artifactType"], "metadata": {}}]
            }
            for key, one in outputs.get("artifacts", {}).items()
        }
        written = {key: {"outputFile": str(self.folder / f"parameter-{key}")} for key in outputs.get("parameters", {})}
        return {
            "inputs": {"parameterValues": known, "artifacts": taken},
            "outputs": {"parameters": written, "artifacts": made, "outputFile": str(self.folder / "output.json")},
        }


def execute_here(task: Task) -> None:
    """Run the function that was shipped, in this process."""
    code: Values = {}
    # As in a process of its own: not with the annotations as text that this module has.
    exec(compile(task.container["command"][-1], "<step>", "exec", dont_inherit=True), code)
    Executor(task.executor_input(), code[task.container["args"][-1]]).execute()


@dataclass
class _Outcome:
    status: str
    """SUCCEEDED, FAILED or OMITTED."""
    parameters: Values = field(default_factory=dict)
    artifacts: Values = field(default_factory=dict)


@dataclass
class Engine:
    """Runs pipelines.

    Args:
        root: Where artifacts go.
        around: Called with each step and what runs it; may do without, or raise PodDied, before or after.
        execute: Runs a step: what it raises has ended the step.
        at_once: Items of a loop that are gone through at once.
    """

    root: Path
    around: Callable[[Step, Callable[[], None]], None] = lambda step, run: run()
    execute: Callable[[Task], None] = execute_here
    at_once: int = 1
    steps: list[Step] = field(default_factory=list)
    """All that ran, in order."""
    pods: int = 0
    """As many as a cluster would have needed."""
    errors: list[BaseException] = field(default_factory=list)
    """What ended steps."""

    def run(self, package: Values, parameters: Values, run_id: str) -> str:
        """Run a pipeline; returns SUCCEEDED or FAILED."""
        spec = package.get("pipeline_spec", package)
        return _Run(self, spec, run_id).graph(spec["root"], parameters, {}).status

    def names(self, run: str | None = None) -> list[str]:
        """Of the steps that ran, in order, in all runs or in one."""
        return [step.name for step in self.steps if run in (None, step.run)]


def run_all(server: KfpServer, engine: Engine, most: int = 20) -> list[str]:
    """Run what the server holds, and what those runs send, until nothing waits; the states in which they ended."""
    states = []
    while waiting := [run for run in server.runs.values() if run["state"] == "PENDING"]:
        assert len(states) < most, "the chain does not end"
        run = waiting[0]
        server.set_state(run["run_id"], "RUNNING")
        states.append(engine.run(run["pipeline_spec"], run["runtime_config"]["parameters"], run["run_id"]))
        if run["state"] == "RUNNING":
            server.set_state(run["run_id"], states[-1])
    return states


@dataclass
class _Run:
    engine: Engine
    spec: Values
    run_id: str

    def graph(self, component: Values, parameters: Values, artifacts: Values) -> _Outcome:
        """Go through a graph of tasks, in the order of what waits for what."""
        self.engine.pods += 1
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        defaults = {name: one["defaultValue"] for name, one in declared.items() if "defaultValue" in one}
        given = _Outcome("SUCCEEDED", defaults | parameters, artifacts)
        waiting, done = dict(component["dag"]["tasks"]), dict[str, _Outcome]()
        while waiting:
            name = next(n for n, task in waiting.items() if set(task.get("dependentTasks", ())) <= done.keys())
            task = waiting.pop(name)
            before = [done[other] for other in task.get("dependentTasks", ())]
            in_any_case = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            if in_any_case or all(one.status == "SUCCEEDED" for one in before):
                done[name] = self._task(task, given, done)
            else:
                done[name] = _Outcome("OMITTED")
        if any(one.status != "SUCCEEDED" for one in done.values()):
            return _Outcome("FAILED")
        outputs, found = component["dag"].get("outputs", {}), _Outcome("SUCCEEDED")
        for key, one in outputs.get("parameters", {}).items():
            source = one["valueFromParameter"]
            found.parameters[key] = done[source["producerSubtask"]].parameters.get(source["outputParameterKey"])
        for key, one in outputs.get("artifacts", {}).items():
            (source,) = one["artifactSelectors"]
            found.artifacts[key] = done[source["producerSubtask"]].artifacts.get(source["outputArtifactKey"])
        return found

    def _task(self, task: Values, given: _Outcome, done: dict[str, _Outcome]) -> _Outcome:
        component = self.spec["components"][task["componentRef"]["name"]]
        inputs = task.get("inputs", {})
        parameters = {key: self._value(one, given, done) for key, one in inputs.get("parameters", {}).items()}
        artifacts = {key: _artifact(one, given, done) for key, one in inputs.get("artifacts", {}).items()}
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition is not None and not _holds(condition, parameters):
            self.engine.pods += 1
            return _Outcome("SUCCEEDED")
        if "parameterIterator" in task:
            return self._loop(task, component, parameters, artifacts)
        if "dag" in component:
            return self.graph(component, parameters, artifacts)
        return self._step(task, component, parameters, artifacts, given.parameters)

    def _loop(self, task: Values, component: Values, parameters: Values, artifacts: Values) -> _Outcome:
        self.engine.pods += 1
        items = parameters[task["parameterIterator"]["items"]["inputParameter"]]
        assert items, "a loop over no items breaks KFP"
        item = task["parameterIterator"]["itemInput"]
        with ThreadPoolExecutor(self.engine.at_once) as threads:
            ends = list(threads.map(lambda one: self.graph(component, {**parameters, item: one}, artifacts), items))
        if any(end.status != "SUCCEEDED" for end in ends):
            return _Outcome("FAILED")
        collected = {key: [one for end in ends for one in end.artifacts[key]] for key in ends[0].artifacts}
        values = {key: [end.parameters[key] for end in ends] for key in ends[0].parameters}
        return _Outcome("SUCCEEDED", values, collected)

    def _value(self, source: Values, given: _Outcome, done: dict[str, _Outcome]) -> Any:
        if "componentInputParameter" in source:
            return given.parameters[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            where = source["taskOutputParameter"]
            return done[where["producerTask"]].parameters[where["outputParameterKey"]]
        if "taskFinalStatus" in source:
            # Its state says RUNNING as well as COMPLETE after success, so nothing can be decided by it.
            return {"state": "RUNNING", "pipelineJobResourceName": self.run_id, "error": {}}
        value = source["runtimeValue"]["constant"]
        return self.run_id if value == "{{$.pipeline_job_uuid}}" else value

    def _step(self, task: Values, component: Values, parameters: Values, artifacts: Values, scope: Values) -> _Outcome:
        engine, name = self.engine, task["taskInfo"]["name"]
        engine.pods += 2
        step = Step(name, self.run_id, engine.names(self.run_id).count(name))
        engine.steps.append(step)
        folder = engine.root / self.run_id / f"{len(engine.steps)}-{name.replace(' ', '-')}"
        folder.mkdir(parents=True)
        label = component["executorLabel"]
        container = self.spec["deploymentSpec"]["executors"][label]["container"]
        given = Task(label, container, component, parameters, artifacts, scope, folder)
        try:
            engine.around(step, lambda: engine.execute(given))
        except (Exception, SystemExit) as error:
            engine.errors.append(error)
            return _Outcome("FAILED")
        written = json.loads((folder / "output.json").read_text())
        made = {key: one["artifacts"] for key, one in written.get("artifacts", {}).items()}
        # What a step has written as a text, with `dsl.OutputPath(str)`.
        texts = {path.name.removeprefix("parameter-"): path.read_text() for path in folder.glob("parameter-*")}
        return _Outcome("SUCCEEDED", texts | written.get("parameterValues", {}), made)


def _holds(condition: str, parameters: Values) -> bool:
    """A comparison in CEL, which Python reads alike."""

    class Inputs:
        parameter_values = parameters

    return bool(eval(condition, {"__builtins__": {}}, {"inputs": Inputs}))  # noqa: S307


def _artifact(source: Values, given: _Outcome, done: dict[str, _Outcome]) -> list[Values]:
    if "componentInputArtifact" in source:
        return list(given.artifacts[source["componentInputArtifact"]])
    where = source["taskOutputArtifact"]
    return list(done[where["producerTask"]].artifacts[where["outputArtifactKey"]])
