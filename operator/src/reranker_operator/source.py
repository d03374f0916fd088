"""Model sources: from the text in `model.source` to what a Job needs."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from reranker_operator.api.fields import SUBDOMAIN

#: What `docker pull` takes; the kubelet has the last word.
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,511}(@sha256:[0-9a-f]{64})?")
_CLAIM = re.compile(SUBDOMAIN)
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CATALOGUE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){1,2}"
    r":[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
)
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[0-9]{1,5})?")
#: Each segment ends at a slash: with optional slashes the match would take exponential time.
_PATH = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*/?")

#: Those of which a refused text may be shown in part; an https:// address may hold a signature.
_SCHEMES = frozenset({"hf", "ngc", "s3", "oci", "pvc"})
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,11}")
#: What may be shown of a refused source; nothing of an address with a user in it is.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*(:[A-Za-z0-9._/-]*)*")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
#: Of the hub's own length: no repository has such a name.
_WHOLE_TOKEN = re.compile(r"hf_[A-Za-z0-9]{30,}")
_LONGEST_SHOWN = 80

SUPPORTED = (
    "hf://ORG/NAME, ngc://ORG[/TEAM]/MODEL:VERSION, s3://BUCKET/PATH, https://HOST/MODEL.tar.gz, "
    "oci://IMAGE[?path=/models] or pvc://CLAIM/PATH"
)


class SourceError(ValueError):
    """The text is no source that this version can read; the message says why."""


@dataclass(frozen=True)
class HubSource:
    """A repository on a Hugging Face hub."""

    repository: str
    scheme: Literal["hf"] = "hf"


@dataclass(frozen=True)
class ImageSource:
    """A directory in a container image."""

    image: str
    path: str
    scheme: Literal["oci"] = "oci"


@dataclass(frozen=True)
class VolumeSource:
    """A directory on a volume claim; an empty path is the volume's root."""

    claim: str
    path: str
    scheme: Literal["pvc"] = "pvc"


@dataclass(frozen=True)
class CatalogueSource:
    """A version of a model in NVIDIA's NGC catalogue."""

    version: str
    scheme: Literal["ngc"] = "ngc"


@dataclass(frozen=True)
class BucketSource:
    """A folder of a bucket; an empty prefix is all of it."""

    bucket: str
    prefix: str
    scheme: Literal["s3"] = "s3"


@dataclass(frozen=True)
class ArchiveSource:
    """A tar archive on a web server."""

    address: str
    scheme: Literal["https"] = "https"


#: Read over the network by the builder itself.
RemoteSource = HubSource | CatalogueSource | BucketSource | ArchiveSource
Source = RemoteSource | ImageSource | VolumeSource


def parse(text: str, field: str = "model.source") -> Source:
    """The source that `text` names, in the spec's `field`. Raises SourceError."""
    scheme, separator, rest = text.partition("://")
    about = f"{field} '{shown(text)}'"
    if not separator:
        raise SourceError(f"{about} has no scheme; write {SUPPORTED}")
    parser = _PARSERS.get(scheme)
    if parser is None:
        raise SourceError(f"{about} has an unknown scheme; use {SUPPORTED}")
    return parser(rest, about)


def _hub(rest: str, about: str) -> Source:
    if not _REPOSITORY.fullmatch(rest) or _WHOLE_TOKEN.search(rest):
        raise SourceError(
            f"{about} names no hub repository; write hf://ORG/NAME, and a token into the "
            "Secret of model.secretRef"
        )
    return HubSource(repository=rest)


def _catalogue(rest: str, about: str) -> Source:
    if not _CATALOGUE.fullmatch(rest) or ".." in rest:
        raise SourceError(
            f"{about} names no version of a model; write ngc://ORG[/TEAM]/MODEL:VERSION, and an "
            "API key into the Secret of model.secretRef"
        )
    return CatalogueSource(version=rest)


def _bucket(rest: str, about: str) -> Source:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or (prefix and not _safe(prefix)):
        raise SourceError(
            f"{about} names no folder of a bucket; write s3://BUCKET/PATH, the server into "
            "model.endpoint and keys into the Secret of model.secretRef"
        )
    return BucketSource(bucket=bucket, prefix=prefix.strip("/"))


def _archive(rest: str, about: str) -> Source:
    host, _, path = rest.partition("/")
    # No user, no query: what logs in would be shown wherever the source is.
    whole = path and not path.startswith("/") and not path.endswith("/")
    if not _HOST.fullmatch(host) or not whole or not _safe(path):
        raise SourceError(
            f"{about} is no plain address of a tar archive; write https://HOST/PATH/MODEL.tar.gz "
            "without user and query"
        )
    return ArchiveSource(address=f"https://{rest}")


def _image(rest: str, about: str) -> Source:
    image, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    path = options.pop("path", "/models")
    if options or not _IMAGE.fullmatch(image) or not _safe(path) or not path.startswith("/"):
        raise SourceError(f"{about} names no image; write oci://IMAGE[?path=/models]")
    return ImageSource(image=image, path=path.rstrip("/"))


def _volume(rest: str, about: str) -> Source:
    claim, _, path = rest.partition("/")
    if len(claim) > 253 or not _CLAIM.fullmatch(claim) or (path and not _safe(path)):
        raise SourceError(f"{about} names no claim and path; write pvc://CLAIM/PATH")
    return VolumeSource(claim=claim, path=path.strip("/"))


_PARSERS: dict[str, Callable[[str, str], Source]] = {
    "hf": _hub,
    "ngc": _catalogue,
    "s3": _bucket,
    "https": _archive,
    "oci": _image,
    "pvc": _volume,
}


def shown(text: str) -> str:
    """What a message may tell of a refused source: people write passwords and tokens into them.

    Conditions and Events are read by more people than the spec's author.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _excerpt(text) if "/" in text else "…"
    if scheme not in _SCHEMES:
        return f"{scheme if _SCHEME.fullmatch(scheme) else '…'}://…"
    place, question, _ = rest.partition("?")
    if "@" in rest or (":" in place and scheme not in ("oci", "ngc")):
        return f"{scheme}://…"
    return f"{scheme}://{_excerpt(place)}" + ("?…" if question else "")


def _excerpt(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        return "…" if text else ""
    plain = _TOKEN.sub("hf_…", text)
    return plain if len(plain) <= _LONGEST_SHOWN else f"{plain[:_LONGEST_SHOWN]}…"


def _safe(path: str) -> bool:
    """Plain segments only: no `..`, no hidden files, nothing a shell would touch."""
    return bool(_PATH.fullmatch(path))
