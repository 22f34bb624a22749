"""How far the surrogates can be believed: where they promise an accuracy that cannot be.

    python -m benchmarks.artefacts --yahpo DIR --prior surrogates.safetensors     count anew, keep that, then print
    python -m benchmarks.artefacts --print                                        print the counts that are kept

An accuracy of 1 means that every row is classified rightly, so the balanced accuracy must be 1, too. Where the network
of rbv2_xgboost promises the one with a balanced accuracy below 0.9, no training run can have scored that. Counted on
the tasks of the suite, for random configurations and for the portfolios of the prior from the surrogates
(``shipped_prior``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import markdown
from benchmarks.shipped_prior import in_scenario, seconds_of
from benchmarks.surrogates import SurrogateTask, load_tasks
from rlhpo_core.priors.store import load_prior
from rlhpo_core.trial import Config
from rlhpo_core.tuner.prior import Prior

ACCURACY, BALANCED = 0, 1
RANDOM = 2000
RESULTS, COUNTS = markdown.RESULTS / "artefacts", "counts.json"


def impossible(task: SurrogateTask, configs: Sequence[Config]) -> int:
    """How many of the configurations would be perfect in accuracy and far from it in balanced accuracy."""
    outputs = task.outputs(configs)
    return int(((outputs[:, ACCURACY] > 0.9999) & (outputs[:, BALANCED] < 0.9)).sum())


def count(folder: Path, prior: Prior) -> dict[str, Any]:
    """Tasks with a reference best of 1, random configurations that are impossible, and the portfolios' members."""
    suite = load_tasks("suite", "rbv2_xgboost", folder)
    impossible_random = [impossible(task, task.random_configs(RANDOM, 0)) for task in suite]
    portfolios = {
        title: [
            {
                "booster": config["booster"],
                "rounds": config["n_estimators"],
                "seconds": round(float(seconds), 1),
                "impossible": sum(impossible(task, [in_scenario(config)]) for task in suite),
            }
            for config, seconds in zip(configs, seconds_of(list(configs)), strict=True)
        ]
        for title, configs in {
            "portfolio": prior.portfolio,
            "portfolio ignoring time": prior.portfolio_ignoring_time,
        }.items()
    }
    perfect = sum(task.best > 0.9999 for task in suite)
    return {"tasks": len(suite), "perfect": perfect, "impossible_random": impossible_random, "portfolios": portfolios}


def sections(counts: Mapping[str, Any]) -> list[str]:
    """What was counted, in words and tables."""
    random = np.array(counts["impossible_random"])
    parts = [
        f"{counts['perfect']} of {counts['tasks']} tasks have a reference best of 1. Of {RANDOM} random configurations "
        f"a task, some are impossible on {(random > 0).sum()} tasks, {random.mean() / RANDOM:.2%} on average."
    ]
    for title, members in counts["portfolios"].items():
        rows = [
            [place, member["booster"], member["rounds"], f"{member['seconds']:.1f}", f"{member['impossible']} tasks"]
            for place, member in enumerate(members, start=1)
        ]
        parts.append(markdown.table([title, "booster", "rounds", "about, s", "impossible on"], rows))
    return parts


INTRO = """
An accuracy of 1 together with a balanced accuracy below 0.9 cannot be. Where the surrogates of `rbv2_xgboost` promise
that, on the 67 XGBoost tasks of the suite: for random configurations, and for those with which a study with the prior
from the surrogates begins (its portfolio, and the one that ignores time). Seconds are an estimate for 4,000 rows.
"""
COMMAND = "python -m benchmarks.artefacts --yahpo DIR --prior surrogates.safetensors"


def pages() -> dict[str, str]:
    """The file of docs/measurements about what the surrogates promise wrongly."""
    content = sections(json.loads((RESULTS / COUNTS).read_text(encoding="utf-8")))
    title = "Where the surrogates cannot be believed"
    return {"artefacts.md": markdown.page(title, INTRO, "artefacts", [RESULTS], COMMAND, content)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yahpo", type=Path, metavar="DIR", help="YAHPO Gym's surrogates, a folder a scenario")
    parser.add_argument("--prior", metavar="FILE", help="what benchmarks.shipped_prior has written")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--print", action="store_true", dest="only_print", help="count nothing")
    given = parser.parse_args()
    if not given.only_print:
        if given.yahpo is None or given.prior is None:
            parser.error("--yahpo and --prior: where are the surrogates, and the prior from them?")
        given.results.mkdir(parents=True, exist_ok=True)
        (given.results / COUNTS).write_text(
            json.dumps(count(given.yahpo, load_prior(given.prior)), indent=1) + "\n", encoding="utf-8"
        )
        markdown.note_versions(given.results)
    print("\n\n".join(sections(json.loads((given.results / COUNTS).read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
