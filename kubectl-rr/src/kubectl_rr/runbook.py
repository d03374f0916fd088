"""The runbook's text for a reason; docs/runbook.md travels with the package."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

#: The section of the reasons that need no help.
_QUIET = "Nothing to do"


@dataclass(frozen=True)
class Entry:
    """One entry: `quiet` when there is nothing to do but wait."""

    reason: str
    text: str
    quiet: bool


@cache
def entries() -> dict[str, Entry]:
    """All entries by their reason."""
    text = files("kubectl_rr").joinpath("runbook.md").read_text(encoding="utf-8")
    found: dict[str, Entry] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, *parts = re.split(r"^### ", section, flags=re.MULTILINE)
        for part in parts:
            reason, _, body = part.partition("\n")
            reason = reason.strip()
            found[reason] = Entry(reason, _plain(body), title.splitlines()[0].strip() == _QUIET)
    return found


def failing(status: str, reason: str) -> bool:
    """Whether a condition tells of a failure, not of work that goes on."""
    entry = entries().get(reason)
    return status == "False" and not (entry is not None and entry.quiet)


def _plain(body: str) -> str:
    """Markdown's emphasis is for the page; code keeps its quotes, to be told from the rest."""
    parts = " ".join(body.split()).split("`")
    parts[::2] = [re.sub(r"\*(\S[^*]*)\*", r"\1", part) for part in parts[::2]]
    return "`".join(parts)
