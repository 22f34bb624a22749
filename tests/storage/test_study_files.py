"""A study's files are the same, and a study goes the same way, wherever they lie."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord, Winner
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import BudgetSpec, ExecutionSpec, ObjectiveSpec, StudySpec
from rlhpo_core.trial import Proposal, Trial, TrialStatus
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.state import TunerState
from rlhpo_core.tuner.state_file import to_bytes
from tests.helpers.servers import S3Server, shared_s3_server

SPEC = StudySpec.model_validate(
    {
        "name": "test",
        "data": {"path": "tables/wine.csv", "target": "quality"},
        "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
        "objective": {"metric": "score", "direction": "maximize"},
        "space": {"act": {"type": "fixed", "value": "score"}, "x": {"type": "float", "low": 0.0, "high": 1.0}},
        "budget": {"trials": 12},
    }
)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> S3Server:
    server = shared_s3_server()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> StudyFiles:
    if request.param == "folder":
        return StudyFiles(open_store(str(tmp_path / "study")))
    server: S3Server = request.getfixturevalue("s3")
    return StudyFiles(open_store(f"s3://{server.bucket}/studies/{uuid.uuid4().hex}"))


def finished(proposal: Proposal, value: float = 0.5) -> Trial:
    return Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=value, seconds=1.0)


def test_what_is_written_is_read(files: StudyFiles) -> None:
    record = StudyRecord.new(SPEC)
    assert files.spec_or_none() is None
    files.write_spec(SPEC)
    files.write_record(record)
    assert files.spec() == files.spec_or_none() == SPEC
    assert str(SPEC.data and SPEC.data.path) == "tables/wine.csv"
    assert files.record() == record
    won = record.model_copy(update={"seconds": 3.5, "winner": Winner(trial_id="0" * 16, holdout={"accuracy": 0.5})})
    files.write_record(won)
    assert files.record() == won
    assert files.store.keys() == ["study.json", "study.yaml"]


def test_the_state_and_the_trials_of_a_round_under_way_are_kept(files: StudyFiles) -> None:
    files.write_record(StudyRecord.new(SPEC))
    with pytest.raises(UserError, match=r"state/ is empty: the study has not begun"):
        files.state()
    state = begin_study(files, SPEC)
    assert to_bytes(state) == to_bytes(files.state())
    proposals = algorithm.propose(state, 3)
    for proposal in reversed(proposals):
        assert files.trial(proposal.trial_id) is None
        files.write_trial(finished(proposal))
    assert files.trial(proposals[1].trial_id) == finished(proposals[1])
    assert files.history().trials == tuple(map(finished, proposals))
    after = algorithm.update_policy(
        algorithm.fit_reward_model(algorithm.observe(state, list(map(finished, proposals))))
    )
    files.write_state(after)
    assert to_bytes(files.state()) == to_bytes(after)
    (next_one,) = algorithm.propose(after, 1)
    files.write_trial(finished(next_one))
    assert files.whole_history().trials == tuple(map(finished, [*proposals, next_one]))
    assert [trial.curve for trial in files.history().trials] == [None, None, None, ()]


def learnt(state: TunerState, value: float = 0.5) -> TunerState:
    """The state one round later, of which all trials have scored the same."""
    trials = [finished(proposal, value) for proposal in algorithm.propose(state, 2)]
    return algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, trials)))


def test_of_two_runs_that_end_a_round_the_first_has_it(files: StudyFiles) -> None:
    files.write_record(StudyRecord.new(SPEC))
    state = begin_study(files, SPEC)
    assert files.latest_round() == 0
    first, second = learnt(state, 0.1), learnt(state, 0.2)
    assert files.write_state(first) is first
    assert to_bytes(files.write_state(second)) == to_bytes(first) == to_bytes(files.state())
    assert files.latest_round() == 1


def test_at_once_too_one_run_has_the_round(files: StudyFiles) -> None:
    files.write_record(StudyRecord.new(SPEC))
    state = begin_study(files, SPEC)
    for _ in range(3):
        others = [learnt(state, value) for value in (0.1, 0.2, 0.3, 0.4)]
        with ThreadPoolExecutor(4) as threads:
            (state,) = {to_bytes(found): found for found in threads.map(files.write_state, others)}.values()
        assert to_bytes(files.state()) == to_bytes(state)


def test_a_run_that_is_rounds_behind_goes_on_from_the_latest(files: StudyFiles) -> None:
    files.write_record(StudyRecord.new(SPEC))
    states = [begin_study(files, SPEC)]
    for _ in range(6):
        states.append(files.write_state(learnt(states[-1])))
    assert files.store.keys("state/") == [f"state/{round_:06d}.safetensors" for round_ in (4, 5, 6)]
    # Its round was cleared away, so it could make it once more.
    for behind in (states[1], states[5]):
        assert to_bytes(files.write_state(behind)) == to_bytes(states[6])
    assert to_bytes(files.state()) == to_bytes(states[6])


def test_a_reader_is_not_misled_by_a_state_that_is_cleared_away(files: StudyFiles) -> None:
    files.write_record(StudyRecord.new(SPEC))
    state = begin_study(files, SPEC)

    class Ahead:
        """The study goes on between the look at what there is and the reading of it."""

        uri = files.store.uri
        keys = files.store.keys

        def read(self, key: str) -> bytes | None:
            going = state
            for _ in range(4 - (files.latest_round() or 0)):
                going = files.write_state(learnt(going))
            return files.store.read(key)

    assert StudyFiles(Ahead()).state().round == 4  # type: ignore[arg-type]


def test_a_damaged_state_is_removed_and_its_round_computed_again(files: StudyFiles) -> None:
    files.write_record(StudyRecord.new(SPEC))
    state = files.write_state(learnt(begin_study(files, SPEC)))
    key = "state/000001.safetensors"
    whole = files.store.read(key) or b""
    files.store.write(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{key}: remove it, and the study goes on from the state before it: "):
        files.state()
    files.store.delete(key)
    assert to_bytes(files.write_state(learnt(begin_study(files, SPEC)))) == to_bytes(state) == whole


def test_a_study_gets_one_identity(files: StudyFiles) -> None:
    first, second = StudyRecord.new(SPEC), StudyRecord.new(SPEC)
    assert files.claim(first)
    assert not files.claim(second)
    assert files.record() == first


def test_a_study_file_of_another_study_is_refused(files: StudyFiles) -> None:
    files.write_record(StudyRecord.new(SPEC, table="abc"))
    longer = SPEC.model_copy(update={"budget": BudgetSpec(trials=9), "execution": ExecutionSpec(workers=3)})
    files.write_spec(longer)
    assert files.spec() == longer
    other = SPEC.model_copy(update={"objective": ObjectiveSpec(metric="auc"), "seed": 5})
    files.write_spec(other)
    for read in (files.spec, files.history):
        with pytest.raises(UserError, match=r"holds a study that differs in .*objective\.metric \(was \w+, is auc\)"):
            read()
    files.check_table("abc")
    for digest in ("abd", None):
        with pytest.raises(UserError, match=rf"another table .* was abc, that of the table there now is {digest}"):
            files.check_table(digest)


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("study.yaml", None, "holds no study; `rlhpo tune STUDY.yaml` starts one"),
        ("study.yaml", b"name: 3", r"/study\.yaml:\nname: "),
        ("study.yaml", b"\xff", r"cannot read the study file .*/study\.yaml"),
        ("study.json", None, r"/study\.json is missing or damaged"),
        ("study.json", b'{"study_id": 3}', r"/study\.json is missing or damaged"),
        ("state/000000.safetensors", b"{", r"/state/000000\.safetensors: this is not an rlhpo state file, or"),
        ("trials/0123.json", b"{", r"/trials/0123\.json is damaged; remove it to have the trial run again"),
    ],
)
def test_missing_and_damaged_files_are_named(files: StudyFiles, key: str, content: bytes | None, message: str) -> None:
    files.write_spec(SPEC)
    files.write_record(StudyRecord.new(SPEC))
    if content is None:
        files.store.delete(key)
    else:
        files.store.write(key, content)
    with pytest.raises(UserError, match=message) as caught:
        (files.spec(), files.record(), files.history())
    assert files.store.uri in str(caught.value)


@pytest.fixture(scope="module")
def pool() -> Iterator[TrialPool]:
    with pytest.MonkeyPatch.context() as patch, TrialPool(SPEC, workers=2, threads=1) as started:
        patch.setenv("RLHPO_ALLOWED_MODULES", "tests")
        yield started


def comparable(files: StudyFiles) -> list[dict[str, Any]]:
    """All but times."""
    return [trial.model_dump(exclude={"started_at", "seconds"}) for trial in files.whole_history().trials]


def test_a_study_is_interrupted_and_continued_wherever_its_files_lie(
    files: StudyFiles, tmp_path: Path, pool: TrialPool
) -> None:
    record = StudyRecord.new(SPEC)
    local = StudyFolder.create(tmp_path / "local", SPEC, record)
    run(local, SPEC, pool, [])
    files.claim(record)
    assert not run(files, SPEC, pool, [], lambda: len(files.store.keys("trials/")) >= 7).finished
    again = StudyFiles(open_store(files.store.uri))
    assert run(again, SPEC, pool, []).finished
    assert comparable(again) == comparable(local)
    files.write_spec(SPEC)
    assert again.store.keys() == local.store.keys()


def test_of_several_that_trained_a_trial_the_first_has_it(files: StudyFiles) -> None:
    files.claim(StudyRecord.new(SPEC))
    (proposal, *_) = algorithm.propose(begin_study(files, SPEC))
    first, second = finished(proposal, value=0.1), finished(proposal, value=0.2)
    assert files.write_trial(first) == first
    assert files.write_trial(second) == first
    assert files.trial(first.trial_id) == first


def test_a_trials_file_with_a_bit_changed_is_refused_or_the_same(tmp_path: Path) -> None:
    files = StudyFiles(open_store(str(tmp_path / "study")))
    files.claim(StudyRecord.new(SPEC))
    (proposal, *_) = algorithm.propose(begin_study(files, SPEC))
    trial = finished(proposal, value=0.1).model_copy(update={"curve": ((1, 0.25), (2, 1 / 3))})
    files.write_trial(trial)
    (path,) = (tmp_path / "study" / "trials").iterdir()
    whole, draw, refused = path.read_bytes(), random.Random(0), 0  # noqa: S311
    for _ in range(300):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            assert files.trial(trial.trial_id) == trial
        except UserError:
            refused += 1
    assert refused > 250
    path.write_bytes(whole.replace(b'"sha256"', b'"sha257"'))
    with pytest.raises(UserError, match="is damaged; remove it to have the trial run again"):
        files.trial(trial.trial_id)
    path.write_bytes(whole)
    assert files.trial(trial.trial_id) == trial
