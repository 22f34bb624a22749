"""Which hyperparameters XGBoost has, and which values they take."""

from __future__ import annotations

from rlhpo_core.evaluators.known_parameters import Known, Vocabulary
from rlhpo_core.trial import Config, Value

_SHARE = Known(1e-9, 1)
#: What may be tuned or set. The tree method is always ``hist``, the objective follows from the task.
KNOWN: dict[str, Known] = {
    "n_estimators": Known(1, whole=True),
    "max_depth": Known(0, whole=True),
    "max_leaves": Known(0, whole=True),
    "max_bin": Known(2, whole=True),
    "grow_policy": Known(choices=("depthwise", "lossguide")),
    "learning_rate": Known(1e-9, 1),
    "gamma": Known(),
    "min_child_weight": Known(),
    "max_delta_step": Known(),
    "subsample": _SHARE,
    "colsample_bytree": _SHARE,
    "colsample_bylevel": _SHARE,
    "colsample_bynode": _SHARE,
    "reg_alpha": Known(),
    "reg_lambda": Known(),
    "scale_pos_weight": Known(),
    "num_parallel_tree": Known(1, whole=True),
    "max_cat_to_onehot": Known(1, whole=True),
    "max_cat_threshold": Known(1, whole=True),
    "booster": Known(choices=("gbtree", "dart", "gblinear")),
    "sample_type": Known(choices=("uniform", "weighted")),
    "normalize_type": Known(choices=("tree", "forest")),
    "rate_drop": Known(0, 1),
    "skip_drop": Known(0, 1),
}
#: Of these, what a linear booster has.
LINEAR = ("booster", "learning_rate", "reg_alpha", "reg_lambda")
ALIASES = {
    "eta": "learning_rate",
    "num_boost_round": "n_estimators",
    "alpha": "reg_alpha",
    "lambda": "reg_lambda",
    "min_split_loss": "gamma",
}
#: Those of XGBoost 3 and, for the number of trees, of its interface for scikit-learn.
DEFAULTS: dict[str, Value] = {
    "n_estimators": 100,
    "max_depth": 6,
    "max_leaves": 0,
    "max_bin": 256,
    "grow_policy": "depthwise",
    "learning_rate": 0.3,
    "gamma": 0.0,
    "min_child_weight": 1.0,
    "max_delta_step": 0.0,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "colsample_bylevel": 1.0,
    "colsample_bynode": 1.0,
    "reg_alpha": 0.0,
    "reg_lambda": 1.0,
    "scale_pos_weight": 1.0,
    "num_parallel_tree": 1,
    "max_cat_to_onehot": 4,
    "max_cat_threshold": 64,
    "booster": "gbtree",
    "sample_type": "uniform",
    "normalize_type": "tree",
    "rate_drop": 0.0,
    "skip_drop": 0.0,
}
VOCABULARY = Vocabulary("XGBoost", KNOWN, ALIASES, DEFAULTS)
#: What of it only ``dart`` has.
_DROPPING = ("rate_drop", "skip_drop", "sample_type", "normalize_type")


def canonical(config: Config) -> Config:
    """The one of all configurations that train the same model by which they are told apart from others.

    ``dart`` that drops no tree is ``gbtree`` with other random draws, at many times the time. A linear booster ignores
    what is about trees: that is as XGBoost has it.
    """
    booster = config.get("booster", DEFAULTS["booster"])
    if booster == "dart" and (_number(config, "rate_drop") <= 0 or _number(config, "skip_drop") >= 1):
        return {name: value for name, value in config.items() if name not in _DROPPING} | {"booster": "gbtree"}
    if booster == "gblinear":
        told = {name for name in config if ALIASES.get(name, name) in (*LINEAR, "n_estimators")}
        return {name: value if name in told else DEFAULTS[ALIASES.get(name, name)] for name, value in config.items()}
    return config


def _number(config: Config, name: str) -> float:
    value = config.get(name, DEFAULTS[name])
    assert isinstance(value, int | float)
    return float(value)
