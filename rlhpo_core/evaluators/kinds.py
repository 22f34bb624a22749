"""Which kinds of evaluator there are. A new one is a class that fulfils ``protocol.Evaluator``, and a line here."""

from __future__ import annotations

import importlib
from typing import cast

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.evaluators.protocol import Evaluator
from rlhpo_core.study.spec import StudySpec

#: Kind, as the study file names it, to ``module:class``. Named and not imported: a study with a function of its own
#: neither waits for XGBoost nor needs it.
CLASSES = {
    "cnn": "rlhpo_core.evaluators.cnn.evaluator:CNNEvaluator",
    "function": "rlhpo_core.evaluators.function:FunctionEvaluator",
    "xgboost": "rlhpo_core.evaluators.xgboost.evaluator:XGBoostEvaluator",
}


def evaluator_class(kind: str) -> type[Evaluator]:
    """The class for a kind, imported with all that it needs.

    Raises: KeyError if there is no such kind.
    """
    module, name = CLASSES[kind].split(":")
    return cast(type[Evaluator], getattr(importlib.import_module(module), name))


def build_evaluator(spec: StudySpec, threads: int, schema: TableSchema | None = None) -> Evaluator:
    """The study's evaluator, with its data loaded; at most ``threads`` threads per training run.

    Args:
        schema: By which its table is read: the study's, or its model's; ``None`` if there is none yet.

    Raises: UserError if its data, its settings or its function cannot be used.
    """
    return evaluator_class(spec.evaluator.kind)(spec, threads, schema)
