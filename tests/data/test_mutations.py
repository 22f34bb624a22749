"""Some mutations of real tables; ``python -m tests.mutations`` tries three hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
from tests.mutations.judging import clean, judged, real_tables
from tests.mutations.mutating import KINDS, mutations

#: Each kind once or more.
COUNT = 40


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, XGBoostEvaluator]:
    folder = tmp_path_factory.mktemp("clean")
    return {name: clean(name, table, folder) for name, table in real_tables().items()}


def test_mutated_tables_are_read_rightly_or_refused(before: dict[str, XGBoostEvaluator], tmp_path: Path) -> None:
    made = mutations(real_tables(), COUNT, seed=1)
    wrong = [
        f"{i} {name} {kind}: {what}"
        for i, (name, kind, mutated) in enumerate(made)
        if (what := judged(before[name], mutated, tmp_path / f"{i}-{kind}"))
    ]
    assert not wrong, "\n".join(wrong)
    assert len({kind for _, kind, _ in made}) > len(KINDS) * 0.6


def test_a_seed_gives_the_same_mutations() -> None:
    tables = real_tables()
    one, again, other = (mutations(tables, 12, seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
