"""``--set NAME=VALUE``: what the pods of a run are given, beyond what the study file says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from rlhpo_core.errors import UserError

#: What only the command line may name: a study file is data, and must not choose credentials.
NAMES = ("config_map", "store_secret", "mlflow_secret", "registry_secret", "alert_secret", "pull_secret")
#: What they are called in the manifests, after ``rlhpo-``.
_DEFAULTS = {
    "config_map": "config", "store_secret": "store", "mlflow_secret": "mlflow", "registry_secret": "registry",
    "alert_secret": "alerts",
}  # fmt: skip
#: A name that can be that of a volume, too: KFP makes one of it.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A field of the study's section cluster (trial_memory=8G), or the name of a secret or config map "
        f"({', '.join(NAMES)}). May be repeated.",
    ),
]


@dataclass(frozen=True)
class ClusterSettings:
    """What ``--set`` has said."""

    overrides: dict[str, Any]
    """Fields of a study file."""
    names: dict[str, str]
    """Of config map and secrets: parameters of the pipeline."""
    pull_secret: str | None
    """Part of the compiled pipeline."""


def parsed_settings(settings: list[str] | None) -> ClusterSettings:
    """The options ``NAME=VALUE``; values are YAML.

    Raises: UserError if a name is not known, or if pods could not have secrets of these names.
    """
    from rlhpo_core.strict_yaml import parse_yaml
    from rlhpo_core.study.cluster_settings import ClusterSpec

    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for setting in settings or ():
        name, equals, text = setting.partition("=")
        if not equals or (name not in NAMES and name not in ClusterSpec.model_fields):
            known = ", ".join([*ClusterSpec.model_fields, *NAMES])
            raise UserError(f"--set {setting}: write NAME=VALUE; the names are {known}")
        if name not in NAMES:
            fields[name] = parse_yaml(text)
        elif not _NAME.fullmatch(text):
            raise UserError(
                f"--set {setting}: KFP names a volume after it, so it has to be 1 to 63 small letters, digits and "
                "dashes, without a dot"
            )
        else:
            names[name] = text
    _check_apart(names)
    pull_secret = names.pop("pull_secret", None)
    return ClusterSettings({"cluster": fields} if fields else {}, names, pull_secret)


def _check_apart(names: dict[str, str]) -> None:
    """Raises: UserError if a pod would have two volumes of one name."""
    mounted = [names.get(name, f"rlhpo-{default}") for name, default in _DEFAULTS.items()]
    if twice := {name for name in mounted if mounted.count(name) > 1}:
        raise UserError(f"--set: a pod cannot mount {', '.join(twice)} twice; give each of its own, even if equal")
