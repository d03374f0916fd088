"""Names of artefacts in a registry: `oci://host[:port]/repository[:tag][@sha256:digest]`.

The grammar of repositories and tags is that of the OCI Distribution Specification v1.1.
"""

import re
from dataclasses import dataclass

from engine_builder.errors import UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"oci://"
    r"(?P<host>(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*(?::[0-9]{1,5})?)"
    rf"/(?P<repository>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_LONGEST = 1024


@dataclass(frozen=True)
class Reference:
    """One artefact, by tag, digest or both; then the digest decides."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def version(self) -> str:
        """What to ask the registry for."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        text = f"oci://{self.host}/{self.repository}"
        if self.tag:
            text += f":{self.tag}"
        return text + (f"@{self.digest}" if self.digest else "")


def is_reference(text: str) -> bool:
    """Whether `text` means a registry rather than a directory."""
    return text.startswith("oci://")


def parse_reference(text: str) -> Reference:
    """The reference that `text` is. Raises UsageError."""
    match = _REFERENCE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise UsageError(
            f"{text[:200]!r}: name an artefact as oci://registry.example/engines/model:tag"
        )
    return Reference(match["host"], match["repository"], match["tag"], match["digest"])
