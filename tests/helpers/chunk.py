"""A run of the pipeline without KFP: ``python -m tests.helpers.chunk STUDY.yaml STORE FOLDER ROUNDS``.

The steps of ``rlhpo_core.kubeflow.steps`` one after another, artifacts as files in the folder; in one process,
which saves the imports that each step has as a task of KFP.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(store: str, folder: Path, rounds: int, table_source: str = "") -> None:
    # Not above: the worker process of each trial imports this module, and need not import what the steps do.
    from rlhpo_core.kubeflow.steps import round_under_way, tuning

    folder.mkdir()
    table, state = folder / "table", folder / "state-0"
    prepared = tuning.prepare(store, table_source, table, state)
    number, more = 1, prepared.more
    while number <= rounds and more == round_under_way.MORE:
        trials = []
        for index, proposal in enumerate(tuning.propose(store, state)):
            trials.append(folder / f"trial-{number}-{index}")
            tuning.train(store, prepared.run_id, proposal, table, prepared.table_name, trials[-1])
        fitted, after = folder / f"fitted-{number}", folder / f"state-{number}"
        tuning.fit_reward_model(state, trials, fitted)
        more = tuning.update_policy(store, prepared.run_id, fitted, after).more
        state, number = after, number + 1
    tuning.conclude(store, table, prepared.table_name)


if __name__ == "__main__":
    from rlhpo_core.kubeflow.next_run import put_study
    from rlhpo_core.study.spec import load_study

    put_study(sys.argv[2], load_study(Path(sys.argv[1])))
    main(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
