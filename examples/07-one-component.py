"""7. One component in a pipeline of your own: evaluator_training scores configurations that your team has chosen.

    python examples/07-one-component.py                  # runs it on this machine with KFP's local runner
    python examples/07-one-component.py pipeline.yaml    # compiles it for a cluster

Each configuration is trained in a separate process with a time limit. A failed training is a result and stops nothing.
The study file lies in a store, where the trials are kept as well: on a cluster an address such as s3://bucket/by-hand.
"""

import json
import sys
from pathlib import Path

from kfp import compiler, dsl, local
from kfp.dsl import Artifact, Dataset, Input, Markdown, Output

from components import IMAGE
from components.evaluator_training.component import evaluator_training

DATA = Path(__file__).parent / "data" / "car.csv"
STUDY = json.dumps(
    {
        "name": "by-hand",
        "data": {"path": "car.csv", "target": "target"},
        "evaluator": {"kind": "xgboost"},
        "objective": "balanced_accuracy",
        "space": {
            "max_depth": {"type": "int", "low": 1, "high": 12},
            "learning_rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
            "n_estimators": {"type": "int", "low": 1, "high": 500},
        },
        "execution": {"trial_timeout": "2m", "threads": 1},
    }
)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def read_table(source: str, study: str, store: str, table: Output[Dataset]):
    """Stands for however a team comes by its table, and puts the study file where the trainings read it."""
    import shutil

    from rlhpo_core.storage.object_store import open_store

    shutil.copyfile(source, table.path)
    open_store(store).write("study.yaml", study.encode())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def choose() -> list[str]:
    """Configurations as evaluator_training takes them, one JSON document each."""
    from rlhpo_core.trial import Proposal

    depths = (2, 6, 10)
    configs = [{"max_depth": depth, "learning_rate": 0.3, "n_estimators": 50} for depth in depths]
    return [
        Proposal(trial_id=f"by-hand-{n}", number=n, round=0, index=n, config=config, actions=()).model_dump_json()
        for n, config in enumerate(configs)
    ]


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare(trials: Input[list[Artifact]], table: Output[Markdown]) -> float:
    """The trials side by side; returns the best value."""
    from pathlib import Path

    from rlhpo_core.trial import Trial

    found = [Trial.model_validate_json(Path(one.path).read_text()) for one in trials]
    lines = ["| configuration | status | value |", "|---|---|---|"]
    lines += [f"| {one.config} | {one.status} | {one.value} |" for one in found]
    Path(table.path).write_text("\n".join(lines) + "\n")
    return max(one.value for one in found if one.value is not None)


@dsl.pipeline(name="by-hand")
def by_hand(source: str, store: str) -> float:
    read = read_table(source=source, study=STUDY, store=store)
    with dsl.ParallelFor(choose().output) as configuration:
        training = evaluator_training(
            store=store, proposal=configuration, table=read.outputs["table"], table_name="car.csv"
        )
    return compare(trials=dsl.Collected(training.outputs["trial"])).outputs["Output"]


if __name__ == "__main__":
    if sys.argv[1:]:
        compiler.Compiler().compile(by_hand, sys.argv[1])
    else:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root="runs/by-hand", raise_on_error=True)
        print("best:", by_hand(source=str(DATA), store=str(Path("runs/by-hand/store").resolve())).output)
