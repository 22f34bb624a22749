"""Settings and credentials of a pod: files of mounted config maps and secrets, one for each key.

They are mounted, and not in the container's environment: KFP's launcher runs in the same container and would take our
``AWS_…`` for its own, and KFP's MLflow plugin sets variables there that may not come from elsewhere as well. This
process alone reads the keys that it knows into its own environment, and again when a file has changed, as the kubelet
renews them within a minute or so.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

#: Where they are mounted; ``pipelines.pods`` and ``manifests`` have the same.
MOUNT = Path("/rlhpo")
#: A config map, and secrets; of a key in two of them, the later has the say.
FOLDERS = ("config", "store", "mlflow", "registry", "alerts")
#: Another account for the same server: if it is there, nothing is read of the first, as two logins are not to be mixed.
_INSTEAD = {"mlflow": "registry"}
#: Certificates (PEM) to trust besides the public ones.
CA_BUNDLE = "ca.crt"
#: What is read: all keys that begin like this …
PREFIXES = ("MLFLOW_", "AWS_", "RLHPO_")
#: … and these.
NAMES = frozenset(
    {"KF_PIPELINES_ENDPOINT", "KFP_API_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
     "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
)  # fmt: skip
#: Variables of KFP's MLflow plugin about its own runs: without meaning for ours once an MLflow is named here.
_PLUGIN = ("MLFLOW_TRACKING_", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE")
#: Variables that name a file of certificates for one library each.
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
#: Seconds between two looks at the files.
_LOOK = 10.0


def known(name: str) -> bool:
    """Whether a key is one of ours."""
    return name in NAMES or name.startswith(PREFIXES)


def read(mount: Path | None = None) -> dict[str, str]:
    """The keys that are known, with what they hold; without line breaks at their ends, which editors leave behind."""
    found: dict[str, str] = {}
    for path in _files(mount or MOUNT):
        if known(path.name):
            try:
                found[path.name] = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                # Its content may be a secret, and is not shown.
                print(f"warning: the setting {path} cannot be read: {type(error).__name__}", flush=True)
    return found


@contextmanager
def mounted(mount: Path | None = None) -> Iterator[None]:
    """Inside, this process has the settings of the mounted files, as they are at each moment.

    If they name an MLflow, what KFP's plugin says of another one is left out. Without such a folder nothing changes: a
    step on one machine has its settings from the environment.
    """
    place = mount or MOUNT
    if not place.is_dir():
        yield
        return
    before, ended = dict(os.environ), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / CA_BUNDLE
        # Looked at before they are read: what changes meanwhile is read again.
        seen = _stamps(place)
        taken = _settings(place, bundle)
        _change(before, {}, taken)

        def follow() -> None:
            nonlocal taken, seen
            while not ended.wait(_LOOK):
                if (now := _stamps(place)) != seen:
                    old, seen, taken = taken, now, _settings(place, bundle)
                    _change(before, old, taken)
                    print("settings of this pod have changed, and were read again", flush=True)

        thread = threading.Thread(target=follow, name="pod settings", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            _change(before, taken, {})


def _settings(mount: Path, bundle: Path) -> dict[str, str | None]:
    """Variables with their values, ``None`` for those that are not to be there.

    Args:
        bundle: Written: the certificates to trust, if some are mounted.
    """
    given, found = read(mount), dict[str, str | None]()
    if "MLFLOW_TRACKING_URI" in given:
        found |= dict.fromkeys(name for name in os.environ if name.startswith(_PLUGIN))
    if (authorities := _authorities(mount)) is not None:
        bundle.write_bytes(authorities)
        found |= dict.fromkeys(_CA_VARIABLES, str(bundle))
    return {**found, **given}


def _change(before: Mapping[str, str], old: Mapping[str, str | None], new: Mapping[str, str | None]) -> None:
    """Bring the environment from the old settings to the new ones; what else has changed in it stays."""
    for name in {**old, **new}:
        if (value := new.get(name, before.get(name))) is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _authorities(mount: Path) -> bytes | None:
    """The public certificates and those that are mounted, as PEM; ``None`` if none are mounted."""
    import certifi

    own = [path.read_bytes() for path in _files(mount) if path.name == CA_BUNDLE]
    return b"\n".join([Path(certifi.where()).read_bytes(), *own]) if own else None


def _files(mount: Path) -> list[Path]:
    """One for each key; the kubelet's own begin with two dots."""
    found = {
        folder: [
            path for path in sorted((mount / folder).glob("*")) if not path.name.startswith(".") and path.is_file()
        ]
        for folder in FOLDERS
    }
    return [path for folder, paths in found.items() if not found.get(_INSTEAD.get(folder, "")) for path in paths]


def _stamps(mount: Path) -> list[tuple[str, int, int]]:
    """What changes when a key or its content does."""
    found = []
    for path in _files(mount):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_ino, status.st_mtime_ns))
    return found
