"""What the columns of the features are, for a model that does not treat them all alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhpo_core.arrays import Ints
from rlhpo_core.space.parameters import Bool, Categorical
from rlhpo_core.space.search_space import SearchSpace


@dataclass(frozen=True)
class FeatureColumns:
    """One entry for each of the d feature columns, and one for each number among them."""

    groups: Ints
    """(d,), from 0 on: columns of one group belong together, such as those of a category."""
    numbers: Ints
    """(p,): the columns that hold numbers, in ascending order."""
    activity: Ints
    """(p,): for each number the column that says whether it is active; -1 if it always is."""

    @classmethod
    def plain(cls, count: int) -> FeatureColumns:
        """``count`` numbers that are always active and have nothing to do with each other."""
        return cls(np.arange(count), np.arange(count), np.full(count, -1))

    def without_numbers(self) -> FeatureColumns:
        """The same groups, with no column taken for a number."""
        return FeatureColumns(self.groups, self.numbers[:0], self.activity[:0])


def feature_columns(space: SearchSpace) -> FeatureColumns:
    """Those of a space: a group for each number, one for each category, and one for what says what is active."""
    groups, numbers, activity = [], [], []
    for group, step in enumerate(space.steps):
        columns = space.feature_groups[step.name]
        if not isinstance(step, Categorical | Bool):
            numbers.append(columns.start)
            activity.append(columns.stop - 1 if step.when else -1)
        groups += [group] * (columns.stop - columns.start - bool(step.when)) + [len(space.steps)] * bool(step.when)
    return FeatureColumns(np.array(groups), np.array(numbers, dtype=np.int64), np.array(activity, dtype=np.int64))
