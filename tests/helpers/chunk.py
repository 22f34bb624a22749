"""A run of the pipeline without KFP: ``python -m tests.helpers.chunk STUDY.yaml STORE FOLDER ROUNDS``.

The steps of ``rlhpo_core.kubeflow.steps`` one after another, artifacts as files in the folder; in one process,
which saves the imports that each step has as a task of KFP.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(study: str, store: str, folder: Path, rounds: int) -> None:
    # Not above: the worker process of each trial imports this module, and need not import what the steps do.
    from rlhpo_core.kubeflow import steps

    folder.mkdir()
    table, state = folder / "table", folder / "state-0"
    prepared = steps.prepare(study, store, "", table, state)
    for number in range(1, rounds + 1):
        trials = []
        for index, proposal in enumerate(steps.propose(study, store, state)):
            trials.append(folder / f"trial-{number}-{index}")
            steps.train(study, store, prepared.run_id, proposal, table, prepared.table_name, trials[-1])
        fitted, after = folder / f"fitted-{number}", folder / f"state-{number}"
        steps.fit_reward_model(state, trials, fitted)
        steps.update_policy(study, store, prepared.run_id, fitted, after)
        state = after
    steps.conclude(study, store, table, prepared.table_name, folder / "report", folder / "note")


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text(), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
