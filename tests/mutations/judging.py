"""Whether a mutated table was read, trained on and served as the table that it was made of, or rightly refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets

from rlhpo_core.data.table import Table
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
from tests.helpers.tables import EXAMPLES, build, quiet
from tests.mutations.mutating import TARGET, Mutated

_MOST_ROWS = 400
_CONFIG = {"max_depth": 3, "n_estimators": 5, "max_bin": 64}


def real_tables(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """Six real tables, each cut to a few hundred rows.

    Args:
        folder: With tables in CSV whose target is called so; ``None`` for those of the examples and of scikit-learn.
    """
    if folder is not None:
        tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    else:
        tables = {name: pd.read_csv(EXAMPLES / f"{name}.csv") for name in ("car", "german_credit", "winequality_white")}
        for name in ("wine", "breast_cancer", "diabetes"):
            tables[name] = getattr(datasets, f"load_{name}")(as_frame=True).frame
    return {name: _cut(table) for name, table in tables.items()}


def _cut(table: pd.DataFrame) -> pd.DataFrame:
    """Some hundred rows, with no class too rare to be divided."""
    drawn = table.sample(min(len(table), _MOST_ROWS), random_state=0).reset_index(drop=True)
    if not pd.api.types.is_float_dtype(drawn[TARGET]):
        counts = drawn[TARGET].value_counts()
        if len(counts) < 30:
            drawn = drawn[drawn[TARGET].isin(counts[counts >= 4].index)].reset_index(drop=True)
    return drawn


def clean(name: str, table: pd.DataFrame, folder: Path) -> XGBoostEvaluator:
    """The evaluator of a table as it is."""
    path = folder / f"{name}.csv"
    table.to_csv(path, index=False)
    return _evaluator(path, {})


def judged(before: XGBoostEvaluator, mutated: Mutated, path: Path) -> str | None:
    """What is wrong with what became of it; ``None`` if it is as it has to be."""
    path = path.with_name(f"{path.name}.{mutated.ending}")
    path.write_bytes(mutated.content)
    try:
        after = _evaluator(path, mutated.fields)
    except UserError as error:
        if mutated.refused is None:
            return f"refused: {error}"
        missing = [part for part in mutated.refused if part not in str(error)]
        return f"the refusal does not name {missing}: {error}" if missing else None
    if mutated.refused is not None:
        return f"not refused; it should name {mutated.refused}"
    return _differing(before.table, after.table, mutated) or _trained_otherwise(before, after, mutated)


def _evaluator(path: Path, fields: dict[str, object]) -> XGBoostEvaluator:
    task = {"metric": "accuracy"}
    try:
        return build(path, **task, data=fields)  # type: ignore[arg-type]
    except UserError as error:
        if "does not fit regression" not in str(error):
            raise
    return build(path, metric="rmse", data=fields)


def _differing(before: Table, after: Table, mutated: Mutated) -> str | None:
    names = {new: former for new, former in mutated.names.items()}
    columns = [names.get(str(name), str(name)) for name in after.features]
    if not set(columns) <= set(map(str, before.features)):
        return f"columns {columns} instead of {list(before.features)}"
    if [str(label) for label in before.classes] != [str(label) for label in after.classes]:
        return f"classes {after.classes} instead of {before.classes}"
    if not np.allclose(before.target, after.target):
        return "another target"
    told = "\n".join(after.notes)
    if unsaid := [part for part in mutated.said if part not in told]:
        return f"no note names {unsaid}: {told}"
    for name, column in zip(columns, after.features, strict=True):
        if (wrong := _column(before.features[name], after.features[column], name, mutated)) is not None:
            return f"column {name!r}: {wrong}"
    return None


def _column(former: pd.Series, now: pd.Series, name: str, mutated: Mutated) -> str | None:
    kept = np.ones(len(former), dtype=bool)
    if mutated.blank is not None and mutated.blank[0] == name:
        kept[mutated.blank[1]] = False
        if not pd.isna(now.iloc[mutated.blank[1]]):
            return f"{now.iloc[mutated.blank[1]]!r} where there is nothing"
    categorical = isinstance(now.dtype, pd.CategoricalDtype)
    if categorical != isinstance(former.dtype, pd.CategoricalDtype):
        return f"{now.dtype} instead of {former.dtype}"
    if categorical:
        alike = now.cat.codes[kept].to_numpy() == former.cat.codes[kept].to_numpy()
        if ((now.cat.codes < 0) != (former.cat.codes < 0))[kept].any():
            return "gaps elsewhere"
        # What is missing on both sides is no text.
        shown = kept & (now.cat.codes >= 0).to_numpy()
        texts = name in mutated.relabelled or (now[shown].astype(str) == former[shown].astype(str)).all()
        if name in mutated.relabelled:
            pairs = {*zip(former[shown].astype(str), now[shown].astype(str), strict=True)}
            return None if len(pairs) == former[shown].nunique() == now[shown].nunique() else "other categories"
        return None if texts and (alike.all() or not kept.all()) else "other categories"
    numbers, wanted = now[kept].to_numpy(dtype=float), former[kept].to_numpy(dtype=float)
    if name in mutated.relabelled:
        return None if np.allclose(numbers - numbers.min(), wanted - wanted.min()) else "other days"
    factor = mutated.factors.get(name, 1.0)
    offset = 0.5 if factor == 1000.0 else 0.0
    same = np.allclose(numbers, wanted * factor + offset, rtol=1e-9, equal_nan=True)
    return None if same else f"other numbers, such as {numbers[:3]} for {wanted[:3]}"


def _trained_otherwise(before: XGBoostEvaluator, after: XGBoostEvaluator, mutated: Mutated) -> str | None:
    """Trained on the same it scores the same, and served it answers the file's own cells as it was trained."""
    scores = [each.evaluate(_CONFIG, quiet).value for each in (before, after)]
    same_columns = len(before.table.features.columns) == len(after.table.features.columns)
    # Other orders of categories, a gap, or another unit may move a split.
    comparable = same_columns and not mutated.relabelled and mutated.blank is None and not mutated.factors
    if comparable and not np.isclose(*scores, rtol=1e-4):
        return f"scores {scores[1]:.6g} instead of {scores[0]:.6g}"
    rows = np.sort(np.concatenate([after.split.train, after.split.validation]))
    served = _served(after.table.raw(rows[:50]), after)
    trained = after._named(after.table.features.iloc[rows[:50]]).reset_index(drop=True)
    for name in trained:
        if list(trained[name].astype(object).fillna("?")) != list(served[name].astype(object).fillna("?")):
            return f"served, column {name!r} is encoded otherwise"
    return None


def _served(rows: pd.DataFrame, after: XGBoostEvaluator) -> pd.DataFrame:
    """Raw rows as the serving script encodes them."""
    from rlhpo_core.data import conversions
    from rlhpo_core.evaluators.xgboost.serving import encoded

    described = after._signature()["described"]
    frame = pd.DataFrame({name: encoded(conversions, name, rows[name], described[name]) for name in described})
    return after._named(frame)
