"""From a source's URI to the object that reads it."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from engine_builder.errors import StageError, UsageError
from engine_builder.sources.base import Source
from engine_builder.sources.directory import DirectorySource
from engine_builder.sources.selection import Content
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
_BUCKET = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[\w!.*'() /+:-]{0,900}))?",
    re.ASCII,
)
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_CATALOGUE = re.compile(
    rf"ngc://(?P<org>{_PART})(/(?P<team>{_PART}))?/(?P<model>{_PART}):(?P<version>{_PART})",
    re.ASCII,
)
_ARCHIVE = re.compile(
    r"https://[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[0-9]{1,5})?(/[\w.~%+-]{1,255}){1,32}", re.ASCII
)
_ENDING = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$")


def open_source(uri: str, source_dir: Path | None, content: Content = "model") -> Source:
    """The source that `uri` names, to read a model or an adapter from.

    Raises UsageError when `source_dir` is missing or superfluous and StageError
    (SourceUnsupported) for a URI that this version cannot read.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        path = uri.removeprefix("dir:")
        if not path:
            raise UsageError(f"--source {uri!r}: name a directory, or a URI such as hf://org/name")
        name = _model_name(uri, Path(path).resolve().name)
        return DirectorySource(source_dir or Path(path), name, content=content)
    if scheme in _MOUNTED:
        if source_dir is None:
            raise UsageError(f"--source {uri}: needs --source-dir with the model's files")
        name = _mounted_name(uri, rest)
        if scheme == "pvc":
            claim_name, _, path = rest.partition("/")
            claim = Claim(claim_name, path.strip("/"), source_dir)
            return DirectorySource(claim.folder, name, claim, content)
        return DirectorySource(source_dir, name, content=content)
    if source_dir is not None:
        raise UsageError(f"--source-dir is for oci://, pvc:// and directories, not for {uri}")
    open_remote = {
        "hf": _hub_source,
        "s3": _bucket_source,
        "ngc": _catalogue_source,
        "https": _archive_source,
    }.get(scheme)
    if open_remote is not None:
        return open_remote(uri, content)
    raise StageError(
        StageReason.SOURCE_UNSUPPORTED,
        f"source {scheme[:20]}://… is not supported; use hf://, ngc://, s3://, https://, oci:// or "
        "pvc://",
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


def _bucket_source(uri: str, content: Content) -> Source:
    match = _BUCKET.fullmatch(uri)
    if match is None or ".." in uri:
        raise StageError(
            StageReason.SOURCE_UNSUPPORTED,
            f"source {_shown(uri)}: not a folder of a bucket; write s3://BUCKET/PATH",
        )
    from engine_builder.sources.listed import ListedSource  # noqa: PLC0415
    from engine_builder.sources.s3 import Bucket  # noqa: PLC0415

    prefix = (match["prefix"] or "").strip("/")
    name = _model_name(uri, prefix.rpartition("/")[2] or match["bucket"])
    return ListedSource(Bucket(match["bucket"], prefix, name), content)


def _catalogue_source(uri: str, content: Content) -> Source:
    match = _CATALOGUE.fullmatch(uri)
    if match is None:
        raise StageError(
            StageReason.SOURCE_UNSUPPORTED,
            f"source {_shown(uri)}: not a version of a model on NGC; write "
            "ngc://ORG[/TEAM]/MODEL:VERSION",
        )
    from engine_builder.sources.listed import ListedSource  # noqa: PLC0415
    from engine_builder.sources.ngc import Catalogue  # noqa: PLC0415

    remote = Catalogue(match["org"], match["team"], match["model"], match["version"])
    return ListedSource(remote, content)


def _archive_source(uri: str, content: Content) -> Source:
    parts = urlsplit(uri)
    # A user, a password or a query may be secrets, and a source's text is shown in many places.
    if not _ARCHIVE.fullmatch(uri) or "@" in parts.netloc:
        raise StageError(
            StageReason.SOURCE_UNSUPPORTED,
            f"source {_shown(uri)}: not a tar archive's plain address; write "
            "https://HOST/PATH/MODEL.tar.gz, without user and query",
        )
    from engine_builder.sources.archive import ArchiveSource  # noqa: PLC0415

    last = parts.path.rpartition("/")[2]
    return ArchiveSource(uri, _model_name(uri, _ENDING.sub("", last)), content)


def _shown(uri: str) -> str:
    """What of a refused source may be shown: people write passwords and signatures into them."""
    return f"{uri.partition('://')[0]}://…" if re.search(r"[@?#&=]", uri) else uri[:200]


def _hub_source(uri: str, content: Content) -> Source:
    match = _HUB.fullmatch(uri)
    if match is None or ".." in uri:
        raise StageError(
            StageReason.SOURCE_UNSUPPORTED,
            f"source {_shown(uri)}: not a hub model; write hf://organisation/name or "
            "hf://organisation/name@revision",
        )
    # Half a second of imports that other sources need not pay for.
    from engine_builder.sources.hub import HubSource  # noqa: PLC0415

    return HubSource(match["repo"], match["revision"], content)
