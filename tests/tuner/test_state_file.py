from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rlhpo_core import tensor_document
from rlhpo_core.errors import UserError
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import EarlierTrial, History, Inherited, Proposal, RoundSummary, Trial, trial_id
from rlhpo_core.tuner import algorithm, state_file
from rlhpo_core.tuner.state import TunerState, initial_state
from rlhpo_core.tuner.state_file import from_bytes, load, save, to_bytes
from tests.helpers.studies import (
    RICH_SPACE,
    VARIANTS,
    after_rounds,
    random_actions,
    rich,
    small_settings,
    steps_of_a_round,
    trials_of,
)

FIXTURE = Path(__file__).parents[1] / "fixtures" / "state-v5.safetensors"
FIXTURE_SETTINGS = small_settings(
    agent={"profile": "extended", "layers": 1, "nodes": 8},
    model={"kind": "gp"},
    screening={"candidates": 32, "spread": 0.1},
)


def start(settings: TunerSettings) -> TunerState:
    return initial_state("study-1", 0, RICH_SPACE, "minimize", settings)


@pytest.fixture(scope="module")
def small() -> TunerState:
    return after_rounds(start(VARIANTS["mbrl extended gp"]), rich, 1)


# -- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_a_study_that_is_saved_and_loaded_after_every_step_is_the_one_that_never_stopped(
    settings: TunerSettings, tmp_path: Path
) -> None:
    path = tmp_path / "state.safetensors"
    straight = stopped = start(settings)
    for _ in range(3):
        save(stopped, path)
        stopped = load(path)
        assert to_bytes(stopped) == to_bytes(straight)
        assert algorithm.propose(stopped) == algorithm.propose(straight)
        step = steps_of_a_round(straight, rich)
        straight = next(step)
        stopped = algorithm.observe(stopped, trials_of(algorithm.propose(stopped), rich))
        for function in (algorithm.fit_reward_model, algorithm.update_policy):
            save(stopped, path)
            stopped = load(path)
            assert to_bytes(stopped) == to_bytes(straight)
            straight, stopped = next(step), function(stopped)
    assert to_bytes(stopped) == to_bytes(straight)


def test_everything_is_restored(small: TunerState) -> None:
    found = from_bytes(to_bytes(small))
    for field in ("study_id", "seed", "settings", "space", "round", "history", "model_trials", "summaries"):
        assert getattr(found, field) == getattr(small, field)
    assert [step.name for step in found.space.steps] == [step.name for step in small.space.steps]
    for trial, expected in zip(found.history.trials, small.history.trials, strict=True):
        assert [type(value) for value in trial.config.values()] == [type(value) for value in expected.config.values()]
    assert found.model is not None
    assert small.model is not None
    assert found.model.diagnostics == small.model.diagnostics
    dtypes = {name: tensor.dtype for name, tensor in small.model.state().items()}
    assert {name: tensor.dtype for name, tensor in found.model.state().items()} == dtypes
    assert found.agent.input.weight.dtype == torch.float32


def of_every_kind(state: TunerState, count: int) -> list[Trial]:
    """The first trials of the round under way: failed, pruned, with metrics, with curves."""
    outcomes: list[dict[str, Any]] = [
        {"status": "complete", "value": 1, "metrics": {"b": 0.5, "a": -0.0}, "curve": ((10, 0.1), (20, 1 / 3))},
        {"status": "failed", "error": "Traceback\né: crashed", "curve": ()},
        {
            "status": "pruned",
            "metrics": {"a": 2.5},
            "curve": ((2**40, -1e300),),
            "stop": {"reason": "é", "step": 2**40, "value": -1e300, "estimate": 1e-300, "deviation": 0.0},
        },
        {"status": "infeasible", "error": "", "started_at": 1.7e9, "seconds": 0.25},
        {"status": "pruned", "stop": {"reason": ""}},
    ]
    return [Trial(proposal=one, **outcomes[one.index % 5]) for one in algorithm.propose(state, count)]


def test_trials_of_every_kind_are_restored(small: TunerState) -> None:
    observed = algorithm.observe(small, of_every_kind(small, 5))
    found = from_bytes(to_bytes(observed))
    assert found.history == observed.history
    assert found.history.model_dump_json() == observed.history.model_dump_json(), "in the same order, to the last bit"
    assert to_bytes(found) == to_bytes(observed)


def test_curves_are_kept_as_long_as_their_round_is_under_way(small: TunerState) -> None:
    trials = of_every_kind(small, 5)
    observed = algorithm.fit_reward_model(algorithm.observe(small, trials))
    assert [trial.curve for trial in observed.history.trials] == [None] * 4 + [trial.curve for trial in trials]
    after = algorithm.update_policy(from_bytes(to_bytes(observed)))
    assert [trial.curve for trial in after.history.trials] == [None] * 9
    assert after.history.trials[4:] == tuple(trial.without_curve() for trial in trials)


def test_what_was_inherited_is_restored(small: TunerState) -> None:
    configs = [trial.config for trial in small.history.trials]
    rewards = [0.5, None, -1.0, 1e9]
    earlier = [EarlierTrial(config=c, reward=r, weight=0.3) for c, r in zip(configs, rewards, strict=True)]
    for trials in ((), tuple(earlier)):
        inherited = Inherited(source="study-0", trials=trials, first=configs[0])
        assert from_bytes(to_bytes(replace(small, inherited=inherited))).inherited == inherited


def test_a_trial_of_another_study_is_not_written(small: TunerState) -> None:
    with pytest.raises(ValueError, match="is not of study study-2"):
        to_bytes(replace(small, study_id="study-2"))


def long(small: TunerState, count: int) -> TunerState:
    """With many trials, a tenth of them failed for a reason of their own, in rounds of four."""
    configs = RICH_SPACE.decode(random_actions(RICH_SPACE, count))
    trials = []
    for number, config in enumerate(configs):
        round_, index = divmod(number, 4)
        proposal = Proposal(
            trial_id=trial_id(small.study_id, round_, index), number=number, round=round_, index=index, config=config,
            actions=(number / count,) * len(RICH_SPACE.steps), predicted=0.1, predicted_std=number / 7,
        )  # fmt: skip
        failed: dict[str, Any] = {"status": "failed", "error": f"Traceback\nRuntimeError: no {number}"}
        good = {"status": "complete", "value": number / 3, "metrics": {"loss": number / 9}, "seconds": 1.0}
        trials.append(Trial(proposal=proposal, **(failed if number % 10 == 0 else good), curve=None))
    summaries = [
        RoundSummary(round=i, trials=4 * i + 4, best=i / 7 if i else None, model_phase="ran") for i in range(count // 4)
    ]
    history = History(direction="minimize", trials=tuple(trials))
    return replace(small, round=count // 4, history=history, summaries=tuple(summaries))


def test_the_header_does_not_grow_with_the_study(small: TunerState) -> None:
    short, whole = to_bytes(long(small, 100)), long(small, 10_000)
    data = to_bytes(whole)
    sizes = [int.from_bytes(file[:8], "little") for file in (short, data)]
    print(f"10,000 trials: {len(data) / 2**20:.1f} MB, {sizes[1] / 2**10:.0f} KB of them the header")
    assert sizes[1] < sizes[0] + 2**10 < 2**15
    assert len(data) < 10_000 * 400
    found = from_bytes(data)
    assert (found.history, found.summaries) == (whole.history, whole.summaries)


def test_a_loaded_state_does_not_share_memory_with_its_file(small: TunerState) -> None:
    data = bytearray(to_bytes(small))
    state = from_bytes(bytes(data))
    expected = to_bytes(state)
    data[-64:] = bytes(64)
    assert to_bytes(state) == expected


def test_nothing_in_the_file_is_executable(small: TunerState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the safetensors format, and reading it goes through no unpickler."""
    data = to_bytes(small)
    assert set(load_tensors(data)) >= {"agent/input.weight", "optimizer/0/exp_avg", "model/cholesky"}
    assert json.loads(header(data)["__metadata__"]["rlhpo"])["study_id"] == "study-1"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert from_bytes(data).round == 1
    malicious = tmp_path / "state.safetensors"
    malicious.write_bytes(pickle.dumps({"agent": [1, 2, 3]}))
    with pytest.raises(UserError, match="not an rlhpo state file"):
        load(malicious)


# -- files that are no states ----------------------------------------------------------------------------------------


def header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(data[8 : 8 + length])
    return found


def rewritten(data: bytes, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> bytes:
    """The file with something changed in its document or its tensors."""
    document, tensors = tensor_document.read("rlhpo", data)
    change(document, tensors)
    return tensor_document.write("rlhpo", document, tensors)


def test_a_rewritten_file_that_nothing_was_changed_in_is_still_read(small: TunerState) -> None:
    data = to_bytes(small)
    assert to_bytes(from_bytes(rewritten(data, lambda document, tensors: None))) == data


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 5000, -5000, -1])
def test_a_truncated_file_is_refused(small: TunerState, length: int) -> None:
    with pytest.raises(UserError, match="not an rlhpo state file, or it is damaged"):
        from_bytes(to_bytes(small)[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"name: study\n",
        b"\xff" * 64,
        save_tensors({"x": torch.zeros(2)}),
        save_tensors({"x": torch.zeros(2)}, metadata={"format": "pt"}),
        save_tensors({"x": torch.zeros(2)}, metadata={"rlhpo": "{"}),
        save_tensors({"x": torch.zeros(2)}, metadata={"rlhpo": "[1]"}),
        save_tensors({"x": torch.zeros(2)}, metadata={"rlhpo": "{}"}),
    ],
    ids=["text", "bytes", "foreign", "foreign metadata", "no json", "no mapping", "no version"],
)
def test_a_foreign_file_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="not an rlhpo state file, or it is damaged"):
        from_bytes(data)


@pytest.mark.parametrize("version", [0, 4, 6, "5", None])
def test_a_state_of_an_unknown_version_is_refused_with_a_way_out(small: TunerState, version: object) -> None:
    changed = rewritten(to_bytes(small), lambda document, tensors: document.update(format_version=version))
    with pytest.raises(UserError, match=f"has format version {version}, this rlhpo reads version 5; continue with"):
        from_bytes(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda document, tensors: document.pop("history"),
        lambda document, tensors: document["history"].update(trials=3),
        lambda document, tensors: document["history"].update(trials=5),
        lambda document, tensors: document["history"]["outcomes"].reverse(),
        lambda document, tensors: document["history"]["configs"].append("more"),
        lambda document, tensors: tensors["history/outcomes/0/integers"].fill_(3),
        lambda document, tensors: tensors["history/configs/2/codes"].fill_(9),
        lambda document, tensors: tensors["history/configs/0/integers"].resize_(3),
        lambda document, tensors: tensors.pop("history/actions"),
        lambda document, tensors: tensors["history/outcomes/3/words"].fill_(255),
        lambda document, tensors: document["settings"].update(mode="other"),
        lambda document, tensors: document["settings"]["agent"].update(nodes=8),
        lambda document, tensors: document["space"].pop("depth"),
        lambda document, tensors: document.update(space=None),
        lambda document, tensors: document["model"].update(kind="svm"),
        lambda document, tensors: document["summaries"].update(count=2),
        lambda document, tensors: tensors.pop("agent/lstm.weight_ih_l0"),
        lambda document, tensors: tensors.pop("model/alpha"),
        lambda document, tensors: tensors.update({"optimizer/x/exp_avg": torch.zeros(1)}),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(
    small: TunerState, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]
) -> None:
    with pytest.raises(UserError, match="is damaged or was changed by hand; take it from a backup"):
        from_bytes(rewritten(to_bytes(small), change))


def test_a_file_with_a_bit_changed_anywhere_is_refused_or_the_same(small: TunerState) -> None:
    data, draw = to_bytes(small), random.Random(0)  # noqa: S311
    tensors = 8 + int.from_bytes(data[:8], "little")
    places = [draw.randrange(tensors, len(data)) for _ in range(60)] + [draw.randrange(tensors) for _ in range(60)]
    refused = []
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        try:
            # Of a number's last digits, some do not count.
            assert to_bytes(from_bytes(bytes(changed))) == data
            refused.append(False)
        except UserError:
            refused.append(True)
    assert all(refused[:60]), "each bit of a tensor counts"
    assert sum(refused) > 110


def test_the_message_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the state: .*missing"):
        load(tmp_path / "missing")
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=rf"^{path}: this is not an rlhpo state file"):
        load(path)


# -- writing ---------------------------------------------------------------------------------------------------------


def test_the_old_file_stays_whole_when_writing_fails(
    small: TunerState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    save(small, path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(after_rounds(small, rich, 1), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


# -- older formats ---------------------------------------------------------------------------------------------------


def test_a_state_of_version_5_is_still_read() -> None:
    """The file was made with ``python -m tests.tuner.test_state_file``; it must never be made again.

    What a later release computes from it may differ in the last digits, what it holds may not.
    """
    state = load(FIXTURE)
    assert (state.study_id, state.seed, state.round, len(state.history)) == ("fixture-v1", 11, 3, 12)
    assert state.settings == FIXTURE_SETTINGS
    assert state.space == RICH_SPACE
    measured = [trial.value or 0.0 for trial in state.history.trials]
    assert measured == pytest.approx([rich(trial.config) for trial in state.history.trials])
    assert [summary.model_phase for summary in state.summaries] == ["ran"] * 3
    assert state.model is not None
    mean, _ = state.model.predict(state.space.features([trial.config for trial in state.history.trials]))
    assert mean.tolist() == pytest.approx(measured, abs=0.5)
    assert len(after_rounds(state, rich, 1).history) == 16


if __name__ == "__main__":
    torch.set_num_threads(1)
    first = initial_state("fixture-v1", 11, RICH_SPACE, "maximize", FIXTURE_SETTINGS)
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.write_bytes(to_bytes(after_rounds(first, rich, 3)))
    print(FIXTURE, FIXTURE.stat().st_size, "bytes, format", state_file.FORMAT_VERSION)


def test_a_round_without_ppo_does_without_torchs_compiler() -> None:
    """To import it takes longer than all else that a step of the pipeline does."""
    program = (
        "import sys\n"
        "from rlhpo_core.study.tuner_settings import TunerSettings\n"
        "from rlhpo_core.tuner import algorithm, state_file\n"
        "from rlhpo_core.tuner.state import initial_state\n"
        "from tests.helpers.studies import RICH_SPACE, after_rounds, rich\n"
        "begun = initial_state('id', 0, RICH_SPACE, 'maximize', TunerSettings())\n"
        "state = state_file.from_bytes(state_file.to_bytes(after_rounds(begun, rich, 3)))\n"
        "print(len(algorithm.propose(state)), 'torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["1", "False"]
