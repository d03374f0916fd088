"""From a source's URI to the object that reads it."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from engine_builder.errors import StageError, UsageError
from engine_builder.sources.base import Source
from engine_builder.sources.directory import DirectorySource
from engine_builder.sources.tree import Claim
from reranker_contracts import StageReason

#: Sources whose files the Job puts into a directory before this program starts.
_MOUNTED = {"oci", "pvc"}
_LONGEST_NAME = 200
_HUB = re.compile(
    r"hf://(?P<repo>[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?)"
    r"(@(?P<revision>[A-Za-z0-9][\w./-]{0,199}))?",
    re.ASCII,
)


def open_source(uri: str, source_dir: Path | None) -> Source:
    """The source that `uri` names.

    Raises UsageError when `source_dir` is missing or superfluous and StageError
    (SourceUnsupported) for a URI that this version cannot read.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        path = uri.removeprefix("dir:")
        if not path:
            raise UsageError(f"--source {uri!r}: name a directory, or a URI such as hf://org/name")
        name = _model_name(uri, Path(path).resolve().name)
        return DirectorySource(source_dir or Path(path), name)
    if scheme in _MOUNTED:
        if source_dir is None:
            raise UsageError(f"--source {uri}: needs --source-dir with the model's files")
        name = _mounted_name(uri, rest)
        if scheme == "pvc":
            claim_name, _, path = rest.partition("/")
            claim = Claim(claim_name, path.strip("/"), source_dir)
            return DirectorySource(claim.folder, name, claim)
        return DirectorySource(source_dir, name)
    if source_dir is not None:
        raise UsageError(f"--source-dir is for oci://, pvc:// and directories, not for {uri}")
    if scheme == "hf":
        return _hub_source(uri)
    raise StageError(
        StageReason.SOURCE_UNSUPPORTED,
        f"source {uri[:200]}: {scheme[:20]}:// is not supported; use hf://, oci:// or pvc://",
    )


def _mounted_name(uri: str, rest: str) -> str:
    """`demo` for oci://registry:5000/models/demo:1.0@sha256:… and for pvc://claim/models/demo."""
    last = urlsplit(f"//{rest}").path.rstrip("/").rpartition("/")[2] or rest.partition("/")[0]
    return _model_name(uri, re.split("[@:]", last, maxsplit=1)[0])


def _model_name(uri: str, name: str) -> str:
    """`name`, which goes into documents, logs and the ranking API."""
    if not name or name in (".", "..") or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise StageError(
            StageReason.SOURCE_UNSUPPORTED,
            f"source {uri[:200]}: names no model; the last part of its path must be a printable "
            f"name of at most {_LONGEST_NAME} characters",
        )
    return name


def _hub_source(uri: str) -> Source:
    match = _HUB.fullmatch(uri)
    if match is None or ".." in uri:
        raise StageError(
            StageReason.SOURCE_UNSUPPORTED,
            f"source {uri[:200]}: not a hub model; write hf://organisation/name or "
            "hf://organisation/name@revision",
        )
    # Half a second of imports that other sources need not pay for.
    from engine_builder.sources.hub import HubSource  # noqa: PLC0415

    return HubSource(repo=match["repo"], revision=match["revision"])
