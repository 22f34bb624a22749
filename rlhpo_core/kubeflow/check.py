"""Tries what a step needs, as a step has it: python -m rlhpo_core.kubeflow.check [STORE]

``manifests/base/check.yaml`` runs it in a pod with the mounts of a trial, so that what it finds is what trials find.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.execution import resources
from rlhpo_core.kubeflow import pod, pod_settings
from rlhpo_core.retries import patiently
from rlhpo_core.storage.object_store import check_conditional_writes, open_store
from rlhpo_core.study.spec import TrackingSpec


@pod.step
def check(store: str) -> list[str]:
    """Write to the store, and ask MLflow; returns what was found, for a person to read.

    Args:
        store: Where studies live; empty for ``RLHPO_STORE``.

    Raises: UserError if one of them cannot be used.
    """
    from rlhpo_core.tracking.connection import Connection

    found = [f"settings: {', '.join(sorted(pod_settings.read())) or 'none are mounted'}"]
    place = store or os.environ.get("RLHPO_STORE") or ""
    if not place:
        raise UserError("where do studies live? Set RLHPO_STORE in the config map, or name the store")
    # Who asks wants to know at once.
    with patiently(0):
        check_conditional_writes(open_store(place))
        found.append(f"store: {place} can be written")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise UserError("where is MLflow? Set MLFLOW_TRACKING_URI in the config map")
        connection = Connection.of(TrackingSpec(), Path.cwd())
        connection.contact(lambda client: client.search_experiments(max_results=1))
    found.append(f"MLflow: {os.environ['MLFLOW_TRACKING_URI']} can be used")
    return [*found, f"cores: {resources.cores()}"]


def main() -> None:
    """What the check's pod runs."""
    try:
        print("\n".join(check(sys.argv[1] if len(sys.argv) > 1 else "")))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
