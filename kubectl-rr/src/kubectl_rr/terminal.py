"""What reaches the terminal: harmless text, colours where they are wanted, symbols it can show.

Everything read from a cluster may have been written by anyone, so `clean` takes out what a
terminal would obey, and texts are printed as rich `Text`, never as markup.
"""

import codecs
import datetime
import os
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LONGEST_TEXT = 4000

#: CSI, then the strings OSC, DCS, SOS, PM and APC with their end, then what has two characters.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
#: Invisible, but words of several scripts are not written right without them.
_JOINERS = frozenset("\u200c\u200d")
_PLAIN = {"✓": "+", "✗": "x", "●": "*", "○": "o", "…": "~", "→": ">"}
_FALLBACK = "kubectl_rr_plain"


def clean(value: str, limit: int = LONGEST_TEXT) -> str:
    """One line without escape sequences, control and invisible characters, at most `limit` long."""
    # Cut first: what follows takes time for every character.
    text = " ".join(_ESCAPES.sub("", value[: 2 * limit]).split())
    text = "".join(c for c in text if c in _JOINERS or unicodedata.category(c) not in _HIDDEN)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def plain_json(text: str) -> str:
    """JSON with everything escaped that `clean` would take out; it still means the same."""
    return "".join(
        c if c in _JOINERS or c == "\n" or unicodedata.category(c) not in _HIDDEN else _escape(c)
        for c in text
    )


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def age(since: datetime.datetime | None, now: datetime.datetime) -> str:
    """As kubectl writes it: `42s`, `7m`, `3h`, `12d`."""
    if since is None:
        return "?"
    seconds = max(0, int((now - since).total_seconds()))
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def console(color: str = "auto", file: TextIO | None = None) -> "Console":
    """The console of standard output; `color` is auto, always or never."""
    from rich.console import Console  # noqa: PLC0415 - `--help` must not wait for it

    stream = file or sys.stdout
    _never_fail(stream)
    if color == "auto" and os.environ.get("NO_COLOR"):
        color = "never"
    always = color == "always"
    return Console(
        file=stream,
        color_system=None if color == "never" else "standard" if always else "auto",
        force_terminal=True if always else None,
        no_color=False if always else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def show(screen: "Console", *parts: "RenderableType") -> None:
    """Print without the blanks that tables pad their last column with."""
    with screen.capture() as captured:
        for part in parts:
            screen.print(part, crop=False)
    screen.file.write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))


def complain(message: str) -> None:
    """One line on standard error."""
    _never_fail(sys.stderr)
    sys.stderr.write(f"kubectl rr: {clean(message)}\n")


def _never_fail(stream: TextIO) -> None:
    """Characters that the terminal's encoding lacks are replaced instead of raising."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=_FALLBACK)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "?") for c in lacking), error.end


codecs.register_error(_FALLBACK, _plain)
