"""What the rule of a study may see: the trials of the rounds before the one under way, as their files have them.

The rounds follow from the study alone, and their files are never changed. So a trial is stopped, or not, at the same
report wherever it runs: beside others in this process, or alone in a pod that reads the files for itself.
"""

from __future__ import annotations

from collections.abc import Callable

from rlhpo_core.stopping.watch import Watch, courses_of, watch_over
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study import rounds
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Proposal

#: Trials of the latest rounds that a rule sees; a pod reads a file for each.
MOST = 256


def watching(files: StudyFiles, spec: StudySpec, round_: int) -> Callable[[Proposal], Watch | None]:
    """What watches over the trials of a round, by proposal. Nothing is read if no trial of the study stops early.

    Args:
        round_: The round under way, counted from 0.

    Raises: UserError if the study's record or one of the trials' files is damaged.
    """
    if spec.stopping.rule == "none" or round_ == 0:
        return lambda proposal: None
    direction = spec.objective.direction
    sizes = [rounds.size(spec.tuner, number) for number in range(round_)]
    earlier = courses_of(files.trials_of(sizes, MOST), direction)
    return lambda proposal: watch_over(spec.stopping, direction, proposal, earlier)
