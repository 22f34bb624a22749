"""What trials under way have saved of themselves, in the study's store: a trial that is killed goes on from there.

On one machine that is a folder beside the study's other files, in a pod it is wherever the study lies. A checkpoint is
of use to its own trial only, and is removed once that has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from rlhpo_core.atomic_files import remove_leftovers
from rlhpo_core.errors import UserError
from rlhpo_core.retries import patiently
from rlhpo_core.storage.object_store import FolderStore, Store

#: Keys of checkpoints begin so.
CHECKPOINTS = "checkpoints/"


@dataclass(frozen=True)
class StoredCheckpoint:
    """One trial's checkpoint. A store that fails is not waited for: the trial loses its checkpoint, and nothing else.

    ``evaluators.protocol.Checkpoint`` says what it is for.
    """

    opened: Callable[[], Store]
    """The study's store, asked for when it is first needed: most evaluators keep nothing."""
    trial_id: str

    def exists(self) -> bool:
        """Whether something was written; not, if the store fails."""
        with suppress(UserError), patiently(0):
            return self._key in self.opened().keys(self._key)
        return False

    def read(self) -> bytes | None:
        """What was written last; ``None`` if nothing was, or if the store fails."""
        with suppress(UserError), patiently(0):
            return self.opened().read(self._key)
        return None

    def write(self, data: bytes) -> None:
        """Replace it in one step, unless the store fails."""
        with suppress(UserError), patiently(0):
            self.opened().write(self._key, data)

    def clear(self) -> None:
        """Remove it, unless the store fails."""
        with suppress(UserError), patiently(0):
            self.opened().delete(self._key)

    @property
    def _key(self) -> str:
        return f"{CHECKPOINTS}{self.trial_id}"


def clear_all(store: Store) -> None:
    """Remove all checkpoints: no trial of the study is under way. A store that fails keeps them for now."""
    with suppress(UserError), patiently(0):
        for key in store.keys(CHECKPOINTS):
            store.delete(key)
    if isinstance(store, FolderStore):
        # A process that was killed while it replaced one: they may be large, and nobody may write there again.
        with suppress(OSError):
            remove_leftovers(store.root / CHECKPOINTS)
