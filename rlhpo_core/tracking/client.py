"""A client of MLflow's server that takes nobody else's answer for MLflow's.

A proxy, or a page to log in, may answer with status 200 and JSON of its own. MLflow reads that as an answer in which
nothing stands: no runs, no aliases, a run without tags. Whoever goes on from there takes a model for one without a
champion, or an alias for set. So each answer is checked for what was asked, and what changes the registry is read back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from mlflow import MlflowClient

from rlhpo_core.errors import Outage

#: Whether an answer is one to these arguments.
_ANSWERED: dict[str, Callable[..., bool]] = {
    "get_experiment_by_name": lambda found, name: found is None or found.name == name,
    "create_experiment": lambda made, *_, **__: bool(made),
    "get_run": lambda found, run_id: found.info.run_id == run_id,
    "create_run": lambda made, *_, **__: bool(made.info.run_id),
    "get_registered_model": lambda found, name: found.name == name,
    "create_registered_model": lambda made, name, *_, **__: made.name == name,
    "get_model_version": lambda found, name, version: (found.name, str(found.version)) == (name, str(version)),
    "get_model_version_by_alias": lambda found, name, alias: found.name == name,
    "create_model_version": lambda made, name, *_, **__: made.name == name and bool(made.version),
}
#: Requests that may find nothing.
_SEARCHES = ("search_runs", "get_metric_history", "search_registered_models", "search_model_versions")
#: Whether a change is there.
_DONE: dict[str, Callable[..., bool]] = {
    "set_registered_model_alias": lambda client, name, alias, version: (
        str(client.get_registered_model(name).aliases.get(alias)) == str(version)
    ),
    "delete_registered_model_alias": lambda client, name, alias: alias not in client.get_registered_model(name).aliases,
    "set_registered_model_tag": lambda client, name, key, value: (
        client.get_registered_model(name).tags.get(key) == str(value)
    ),
    "set_model_version_tag": lambda client, name, version, key, value: (
        client.get_model_version(name, version).tags.get(key) == str(value)
    ),
}


def checked(client: MlflowClient, foreign: Callable[[], Outage]) -> MlflowClient:
    """The client of a server, whose methods raise an Outage as well, if what answers is not MLflow.

    Args:
        foreign: Makes the error that says so.
    """
    return cast(MlflowClient, _CheckedClient(client, foreign))


class _CheckedClient:
    """What ``checked`` returns."""

    def __init__(self, client: MlflowClient, foreign: Callable[[], Outage]) -> None:
        self._client, self._foreign = client, foreign

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in (*_ANSWERED, *_SEARCHES, *_DONE):
            return method

        @wraps(method)
        def request(*args: Any, **kwargs: Any) -> Any:
            # A version is ready at once; for one that nobody has made MLflow would wait for minutes.
            waiting = {"await_creation_for": 0} if name == "create_model_version" else {}
            answer = method(*args, **waiting, **kwargs)
            if name in _ANSWERED:
                self._see_to_it(_ANSWERED[name](answer, *args, **kwargs))
            elif name in _DONE:
                self._see_to_it(_DONE[name](self, *args, **kwargs))
            elif len(answer) == 0:
                # Of a thing that is not there MLflow has to say so; then it is asked once more.
                self._see_to_it(self._client.get_experiment_by_name(f"none-{secrets.token_hex(8)}") is None)
                answer = method(*args, **kwargs)
            return answer

        return request

    def _see_to_it(self, genuine: bool) -> None:
        if not genuine:
            raise self._foreign()
