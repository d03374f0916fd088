"""Model sources: from the text in `model.source` to what a Job needs."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from reranker_operator.api.fields import SUBDOMAIN

#: What `docker pull` takes; the kubelet has the last word.
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,511}(@sha256:[0-9a-f]{64})?")
_CLAIM = re.compile(SUBDOMAIN)
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
#: Each segment ends at a slash: with optional slashes the match would take exponential time.
_PATH = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*/?")

_SCHEMES = frozenset({"hf", "oci", "pvc"})
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,11}")
#: What may be shown of a refused source; nothing of an address with a user in it is.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*(:[A-Za-z0-9._/-]*)*")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
#: Of the hub's own length: no repository has such a name.
_WHOLE_TOKEN = re.compile(r"hf_[A-Za-z0-9]{30,}")
_LONGEST_SHOWN = 80

SUPPORTED = "hf://ORG/NAME, oci://IMAGE[?path=/models] or pvc://CLAIM/PATH"


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


Source = HubSource | ImageSource | VolumeSource


def parse(text: str, field: str = "model.source") -> Source:
    """The source that `text` names, in the spec's `field`. Raises SourceError."""
    scheme, separator, rest = text.partition("://")
    about = f"{field} '{shown(text)}'"
    if not separator:
        raise SourceError(f"{about} has no scheme; write {SUPPORTED}")
    if scheme == "hf":
        if not _REPOSITORY.fullmatch(rest) or _WHOLE_TOKEN.search(rest):
            raise SourceError(
                f"{about} names no hub repository; write hf://ORG/NAME, and a token into the "
                "Secret of model.secretRef"
            )
        return HubSource(repository=rest)
    if scheme == "oci":
        image, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        path = options.pop("path", "/models")
        if options or not _IMAGE.fullmatch(image) or not _safe(path) or not path.startswith("/"):
            raise SourceError(f"{about} names no image; write oci://IMAGE[?path=/models]")
        return ImageSource(image=image, path=path.rstrip("/"))
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if len(claim) > 253 or not _CLAIM.fullmatch(claim) or (path and not _safe(path)):
            raise SourceError(f"{about} names no claim and path; write pvc://CLAIM/PATH")
        return VolumeSource(claim=claim, path=path.strip("/"))
    raise SourceError(f"{about} has an unknown scheme; use {SUPPORTED}")


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
    if "@" in rest or (":" in place and scheme != "oci"):
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
