from __future__ import annotations

from typing import Any

from rlhpo_core.production.gate import Guard, Measured, Verdict
from rlhpo_core.production.ledger import Record
from rlhpo_core.production.model_card import model_card
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Config, Proposal, Trial, TrialStatus

SPEC = StudySpec.model_validate(
    {
        "name": "wine-study",
        "seed": 5,
        "data": {"path": "month|1.csv", "target": "quality"},
        "evaluator": {"kind": "xgboost"},
        "objective": "rmse",
        "space": "xgboost-paper",
        "registry": {"model": "wine"},
    }
)
ROWS = {"train": 60, "validation": 20, "holdout": 20}


def card(config: Config | None = None, record: Record | None = None) -> str:
    config = {"max_depth": 6, "booster": "gbtree"} if config is None else config
    proposal = Proposal(trial_id="t", number=4, round=0, index=4, config=config, actions=())
    trial = Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=0.7)
    return model_card(SPEC, "study-1", trial, {"rmse": 0.712345678}, ROWS, "d" * 32, record)


def decision(**fields: Any) -> Record:
    return Record(
        at=1_700_000_000.0, by="me@here", outcome="promoted", model="wine", reason="rmse <0.7", champion_before="3",
        **fields,
    )  # fmt: skip


def test_it_says_what_the_version_is_and_how_it_was_made() -> None:
    text = card()
    assert text.startswith("# wine\n")
    assert "| study | wine-study (study-1), trial 5 |" in text
    assert rf"| trained on | month\|1.csv, digest {'d' * 32}: 80 rows |" in text
    assert "| chosen by | rmse on 20 validation rows |" in text
    assert "| holdout rmse | 0.712346 |" in text
    assert r"| max\_depth | 6 |" in text
    assert "## Decision" not in text
    assert "## Limits" in text


def test_a_decision_is_shown_with_what_was_measured() -> None:
    measured = Measured(champion=0.8, challenger=0.7, gain=0.1, low=0.05, high=0.15, margin=0.01, detectable=0.04)
    guard = Guard(name="kilobytes", champion=10.0, challenger=12.0, limit="at most 10 times as many", passed=True)
    verdict = Verdict(
        decision="promote", reason="", metric="rmse", rows=500, confidence=0.95, measured=measured, guards=(guard,)
    )
    text = card(record=decision(verdict=verdict))
    assert "**promoted** on 2023-11-14 22:13 UTC by me@here: rmse &lt;0.7." in text
    assert "| champion (version 3) | 0.8 |" in text
    assert "| gain | 0.1, from 0.05 to 0.15 |" in text
    assert "| margin, confidence | 0.01, 95 % |" in text
    assert "| rows that neither has seen | 500 |" in text
    assert "| kilobytes | 12 (10) |" in text


def test_a_refusal_has_a_reason_and_no_table() -> None:
    verdict = Verdict(decision="refuse", reason="", metric="rmse", rows=5, confidence=0.95)
    text = card(record=decision(verdict=verdict))
    assert "## Decision" in text
    assert "gain" not in text


def test_it_is_cut_where_mlflow_would_refuse_it() -> None:
    text = card({f"parameter_{number}": number for number in range(400)})
    assert len(text) < 5000
    assert text.endswith(" |\n\n(cut short)\n")
