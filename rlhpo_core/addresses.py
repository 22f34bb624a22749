"""Addresses as people write them (folders, s3://, databases, servers): checked by their form, and nothing is asked."""

from __future__ import annotations

import difflib
import re

#: Begins an address: a scheme with one slash or two, or with a backslash, as it is mistyped.
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>[/\\]*)(?P<rest>.*)", re.DOTALL)
#: Begins an address that is no file's name; a path that was made of one has lost slashes.
BEGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_QUOTES = "\"'`“”‘’"
#: How files with priors end.
PRIOR_FILE = ".safetensors"
#: Where a study's files, a ledger or a prior may lie.
STORES = ("s3", "file")
#: Other names of S3, as Hadoop and Spark have them.
S3_SCHEMES = ("s3", "s3a", "s3n")
#: Of MLflow: servers, databases, and what it knows besides.
_SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_OTHERS = ("file", "databricks", "databricks-uc", "uc")
_MLFLOW = (*_SERVERS, *_DATABASES, *_OTHERS)
#: MLflow's registry takes none of these in a model's name; the others mislead where names stand in addresses.
_NOT_IN_NAMES = re.compile(r"[/:@\x00-\x1f\x7f]")


def as_store(text: str, what: str = "a store") -> str:
    """The address of a store (a folder, ``file:///…`` or ``s3://bucket/prefix``), if its form is sound.

    ``s3a://`` and ``s3n://`` become ``s3://``, and ``arn:aws:s3:::bucket/prefix`` as well.

    Args:
        what: What the address is of, for messages.

    Raises: ValueError, with the address as it was probably meant.
    """
    _check_text(text, what)
    if text.startswith("arn:"):
        return _of_arn(text)
    parts = _SCHEME.match(text)
    # One letter and a colon are a drive of Windows, and no scheme.
    if parts is None:
        return text
    scheme, slashes, rest = parts["scheme"].lower(), parts["slashes"], parts["rest"]
    if scheme in S3_SCHEMES and slashes == "//":
        return _of_s3(rest, text)
    if scheme == "file" and slashes == "///":
        return text
    meant = "s3" if scheme in S3_SCHEMES else _close(scheme, STORES)
    if meant is None and not slashes:
        return text  # A name with a colon in it is a file's.
    wanted = "write a path, file:///… or s3://bucket/prefix"
    if meant is None:
        raise ValueError(f"{what} cannot be at {scheme}://; {wanted}")
    raise ValueError(f"{text!r} is no address; did you mean {_written(meant, rest)!r}? ({wanted})")


def as_mlflow(text: str) -> str:
    """The address of an MLflow server or of its database, if its form is sound.

    Raises: ValueError, with the address as it was probably meant.
    """
    _check_text(text, "MLflow")
    if text in _OTHERS or text.startswith(("/", "./", "../")):
        return text
    parts = _SCHEME.match(text)
    wanted = "write for example http://mlflow.example:5000 or sqlite:////data/mlflow.db"
    if parts is None:
        if re.fullmatch(r"[\w.-]+(:\d+)?(/.*)?", text) and ("." in text.split("/")[0] or ":" in text):
            raise ValueError(f"{text!r} is no address; did you mean {'http://' + text!r}? ({wanted})")
        raise ValueError(f"{text!r} is no address of MLflow; {wanted}")
    scheme, slashes, rest = parts["scheme"].lower(), parts["slashes"], parts["rest"]
    name = scheme.split("+")[0]
    if name in _OTHERS:
        return text
    if name in _SERVERS and slashes == "//" and re.match(r"[^/?#]", rest):
        return text
    if name in _DATABASES and slashes.startswith("//"):
        if name == "sqlite" and slashes == "//":
            raise ValueError(f"{text!r} names no file; did you mean {f'sqlite:///{rest}'!r}? (four slashes and a path)")
        return text
    if re.fullmatch(r"\d+(/.*)?", rest) and not slashes:
        raise ValueError(f"{text!r} is no address; did you mean {'http://' + text!r}? ({wanted})")
    meant = name if name in _MLFLOW else _close(name, (*_SERVERS, *_DATABASES))
    if meant is None:
        return text  # MLflow takes further schemes from plugins, such as azureml:// and ARNs of SageMaker.
    if not rest:
        raise ValueError(f"{text!r} names no server; {wanted}")
    raise ValueError(f"{text!r} is no address; did you mean {_written(meant, rest)!r}? ({wanted})")


def as_model_name(text: str) -> str:
    """A name that MLflow's registry takes. Raises: ValueError, with the characters that it does not take."""
    found = sorted(set(_NOT_IN_NAMES.findall(text)))
    if found:
        shown = " ".join(repr(character) for character in found)
        better = _NOT_IN_NAMES.sub("-", text).strip("-")
        raise ValueError(
            f"{text!r} is no name of a registered model: it holds {shown}, and '/', ':' and '@' may not be in one; "
            f"write for example {better or 'model'!r}"
        )
    if text.strip() != text or not text or len(text) > 256:
        raise ValueError(
            f"{text!r} is no name of a registered model; it has 1 to 256 characters, no blanks at its ends"
        )
    return text


def _check_text(text: str, what: str) -> None:
    bare = text.strip().strip(_QUOTES).strip()
    if not bare:
        raise ValueError(f"the address of {what} is empty; leave the field out, or write one")
    if bare != text:
        raise ValueError(f"{text!r} has quotes or blanks in it that do not belong to the address; write {bare!r}")
    if any(ord(character) < 32 for character in text):
        raise ValueError(f"{text!r} has a line break or another control character in it; take it out")


def _of_s3(rest: str, text: str) -> str:
    if rest.startswith("arn:"):
        return f"s3://{rest}"
    if not rest.strip("/"):
        raise ValueError(f"{text!r} names no bucket; write s3://bucket/prefix")
    if rest.startswith("/"):
        raise ValueError(f"{text!r} is no address; did you mean {_written('s3', rest)!r}?")
    return f"s3://{rest}"


def _of_arn(text: str) -> str:
    if text.startswith("arn:aws:s3:::"):
        return f"s3://{text.removeprefix('arn:aws:s3:::')}"
    if re.match(r"arn:[\w-]+:s3[\w-]*:[\w-]*:\d*:accesspoint[/:]", text):
        return f"s3://{text}"
    raise ValueError(f"{text!r} is no bucket and no access point; write s3://bucket/prefix")


def _close(scheme: str, known: tuple[str, ...]) -> str | None:
    return next(iter(difflib.get_close_matches(scheme, known, n=1, cutoff=0.55)), None)


def _written(scheme: str, rest: str) -> str:
    rest = rest.replace("\\", "/").lstrip("/")
    return f"{scheme}:///{rest}" if scheme in ("file", "sqlite") else f"{scheme}://{rest}"
