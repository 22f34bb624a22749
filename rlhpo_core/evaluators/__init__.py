"""What scores a configuration. One module per kind; ``protocol`` says what they have in common."""

from __future__ import annotations

from rlhpo_core.evaluators.protocol import Evaluator
from rlhpo_core.study.spec import FunctionSpec, StudySpec


def build_evaluator(spec: StudySpec, threads: int) -> Evaluator:
    """The study's evaluator, with its data loaded; at most ``threads`` threads per training.

    Raises: UserError if its data, its settings or its function cannot be used.
    """
    # Imported here: a study with a function of its own should not wait for XGBoost, nor need it.
    if isinstance(spec.evaluator, FunctionSpec):
        from rlhpo_core.evaluators.function import FunctionEvaluator

        return FunctionEvaluator(spec.evaluator, spec.objective.metric)
    from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator

    return XGBoostEvaluator(spec, threads)
