"""The bank of real trainings as pools: configurations of an algorithm that were tried on the same tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.algorithms import ALGORITHMS, METRICS, Algorithm, Floats, canonical_of
from benchmarks.real_evaluations import ANYWHERE, BEST, EARLIER, LIBRARY, Row, fold_of
from rlhpo_core.priors.common_space import told_once
from rlhpo_core.priors.portfolio import WORST
from rlhpo_core.study.spec import METRICS as DIRECTIONS
from rlhpo_core.trial import Config, sign

#: A table of fewer configurations with a score is left out.
LEAST = 15
#: A configuration that was tried on a smaller share of the tables is left out: the bank is made table by table.
MOST = 0.8
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Configurations of an algorithm that were tried on all tables of a kind, judged by one metric."""

    algorithm: Algorithm
    task: str
    metric: str
    tables: Sequence[str]
    configs: Sequence[Config]
    """N of them in their canonical form, none twice."""
    kinds: Sequence[frozenset[tuple[str, int]]]
    """Of each configuration: why it was tried, and without which group of tables."""
    rewards: Floats
    """(T, N): higher is better; NaN where there is none."""
    seconds: Floats
    """(T, N): of CPU."""
    library: Floats
    """(T,): rewards of the library's defaults."""

    @cached_property
    def regrets(self) -> Floats:
        """(T, N)."""
        return self._regrets(self.rewards)

    @cached_property
    def library_regrets(self) -> Floats:
        """(T,)."""
        return self._regrets(self.library[:, None])[:, 0]

    def _regrets(self, rewards: Floats) -> Floats:
        best = np.nanmax(np.column_stack([self.rewards, self.library]), axis=1)
        anywhere = self.of_kind(ANYWHERE)
        # What was too long counts as bad.
        middling = np.median(np.nan_to_num(self.rewards[:, anywhere], nan=-np.inf), axis=1)
        middling = np.where(np.isfinite(middling), middling, np.nanmin(self.rewards, axis=1))
        regrets = (best[:, None] - rewards) / np.maximum(best - middling, 1e-9)[:, None]
        return np.minimum(np.nan_to_num(regrets, nan=WORST), WORST)

    @cached_property
    def folds(self) -> Indices:
        """(T,): the group of each table among all of its kind."""
        return np.array([fold_of(table) for table in self.tables])

    @cached_property
    def costs(self) -> Floats:
        """(N,): relative to the median of the quasi-random ones, as a geometric mean over tables."""
        logs = np.log(np.maximum(self.seconds, 1e-4))
        return np.asarray(np.exp((logs - np.median(logs[:, self.of_kind(ANYWHERE)], axis=1, keepdims=True)).mean(0)))

    def of_kind(self, kind: str) -> Indices:
        return np.array(
            [i for i, kinds in enumerate(self.kinds) if any(kind == known for known, _ in kinds)], dtype=int
        )

    def eligible(self, without: int) -> Indices:
        """Configurations that may be chosen if a group of tables is left out: it had no part in any of them."""
        return np.array(
            [
                index
                for index, kinds in enumerate(self.kinds)
                if any(kind != EARLIER and (kind != BEST or without in (-1, group)) for kind, group in kinds)
            ],
            dtype=int,
        )

    @cached_property
    def by_hand(self) -> list[int]:
        """The nearest to the library's defaults, and the picks by hand."""
        canonical = told_once(
            self.algorithm.picks(self.task), self.algorithm.space, canonical_of(self.algorithm.space_name)
        )
        return [self.configs.index(config) for config in canonical]


def pools_of(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Pool]]:
    """By algorithm and task, and then by metric: those with two tables or more."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.algorithm, row.task), []).append(row)
    found: dict[tuple[str, str], dict[str, Pool]] = {}
    for key in sorted(grouped):
        tried = [
            Tried(row, config, _text(config)) for row, config in zip(grouped[key], _told(grouped[key]), strict=True)
        ]
        pools = {metric: pool for metric in METRICS[key[1]] if (pool := _pool(tried, metric)) is not None}
        if pools:
            found[key] = pools
    return found


@dataclass(frozen=True)
class Tried:
    """A training with its configuration in canonical form."""

    row: Row
    config: Config
    text: str


def _told(rows: Sequence[Row]) -> list[Config]:
    """The configurations of an algorithm's trainings in canonical form."""
    algorithm = ALGORITHMS[rows[0].algorithm]
    known: dict[str, Config] = {}
    for row in rows:
        if (text := _text(row.config)) not in known:
            config = row.config if row.kind != LIBRARY else algorithm.default(row.task)
            (known[text],) = told_once([config], algorithm.space, canonical_of(algorithm.space_name))
    return [known[_text(row.config)] for row in rows]


def _text(config: Config) -> str:
    return json.dumps(config, sort_keys=True)


def _pool(tried: Sequence[Tried], metric: str) -> Pool | None:
    """Configurations that were tried on nearly all tables, and the tables on which all of these were tried."""
    algorithm, task = ALGORITHMS[tried[0].row.algorithm], tried[0].row.task
    tried_on: dict[str, set[str]] = {}
    tried_there: dict[str, set[str]] = {}
    for one in tried:
        if one.row.kind != LIBRARY:
            tried_on.setdefault(one.text, set()).add(one.row.table)
            tried_there.setdefault(one.row.table, set()).add(one.text)
    most = max(len(tables) for tables in tried_on.values())
    kept = [text for text, tables in tried_on.items() if len(tables) >= MOST * most]
    tables = sorted(table for table, known in tried_there.items() if known >= set(kept))
    at = {text: index for index, text in enumerate(kept)}
    place = {table: index for index, table in enumerate(tables)}
    rewards, seconds = np.full((len(tables), len(kept)), np.nan), np.full((len(tables), len(kept)), np.nan)
    library, kinds = np.full(len(tables), np.nan), [set[tuple[str, int]]() for _ in kept]
    configs: list[Config] = [{} for _ in kept]
    default = _text(_default(algorithm, task))
    for one in tried:
        row = one.row
        if row.table not in place:
            continue
        reward = sign(DIRECTIONS[metric]) * (row.scores or {}).get(metric, np.nan)
        if row.kind == LIBRARY or (algorithm.expressed and one.text == default):
            library[place[row.table]] = reward
        if row.kind == LIBRARY or one.text not in at:
            continue
        index = at[one.text]
        configs[index] = one.config
        kinds[index].add((row.kind, row.without))
        # Of several that train the same model the quickest is what is meant.
        if not row.seconds >= seconds[place[row.table], index]:
            rewards[place[row.table], index], seconds[place[row.table], index] = reward, row.seconds
    good = [
        index
        for index in range(len(tables))
        if np.isfinite(rewards[index]).sum() >= LEAST and np.nanstd(rewards[index]) > 0 and np.isfinite(library[index])
    ]
    if len(good) < 2:
        return None
    return Pool(
        algorithm, task, metric, [tables[i] for i in good], configs, [frozenset(k) for k in kinds], rewards[good],
        seconds[good], library[good],
    )  # fmt: skip


def _default(algorithm: Algorithm, task: str) -> Config:
    return told_once([algorithm.default(task)], algorithm.space, canonical_of(algorithm.space_name))[0]
