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


def parse(text: str) -> Source:
    """The source that `text` names. Raises SourceError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise SourceError(f"model.source '{text}' has no scheme; write {SUPPORTED}")
    if scheme == "hf":
        if not _REPOSITORY.fullmatch(rest):
            raise SourceError(f"model.source '{text}' names no hub repository; write hf://ORG/NAME")
        return HubSource(repository=rest)
    if scheme == "oci":
        image, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        path = options.pop("path", "/models")
        if options or not _IMAGE.fullmatch(image) or not _safe(path) or not path.startswith("/"):
            raise SourceError(
                f"model.source '{text}' names no image; write oci://IMAGE[?path=/models]"
            )
        return ImageSource(image=image, path=path.rstrip("/"))
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if len(claim) > 253 or not _CLAIM.fullmatch(claim) or (path and not _safe(path)):
            raise SourceError(
                f"model.source '{text}' names no claim and path; write pvc://CLAIM/PATH"
            )
        return VolumeSource(claim=claim, path=path.strip("/"))
    raise SourceError(f"model.source '{text}' has the unknown scheme '{scheme}'; use {SUPPORTED}")


def _safe(path: str) -> bool:
    """Plain segments only: no `..`, no hidden files, nothing a shell would touch."""
    return bool(_PATH.fullmatch(path))
