"""A round's proposals as they were made first: whoever comes to the round again trains these.

On another kind of processor the same state gives other proposals, which would go under the same trial ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlhpo_core.errors import UserError
from rlhpo_core.storage.object_store import Store
from rlhpo_core.trial import Proposal

_FOLDER = "proposals/"


def read(store: Store, round_: int) -> list[Proposal] | None:
    """The proposals of a round; ``None`` if there are none yet. Raises: UserError if their file is damaged."""
    if (data := store.read(_key(round_))) is None:
        return None
    try:
        return [Proposal.model_validate_json(json.dumps(one)) for one in json.loads(data)]
    except (ValueError, TypeError) as error:
        raise UserError(f"{store.uri}/{_key(round_)} is damaged; remove it to have the round proposed again") from error


def claim(store: Store, round_: int, proposals: Sequence[Proposal]) -> list[Proposal]:
    """Keep the proposals of a round unless there are some; returns those that are there afterwards.

    Args:
        proposals: All of a round, also if fewer are to be trained: a budget may be raised.

    Raises: UserError as ``read``, or if the store fails.
    """
    data = json.dumps([one.model_dump(mode="json") for one in proposals]).encode()
    return list(proposals) if store.create(_key(round_), data) else read(store, round_) or list(proposals)


def _key(round_: int) -> str:
    return f"{_FOLDER}{round_:06d}.json"
