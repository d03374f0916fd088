"""How messages are put together: one sentence of what happened, then one remedy."""

import re
import unicodedata

#: What a registry, a hub or a log may say and a status must not: user and password or a signed
#: query in an address, tokens by their usual look, whatever follows a header's or field's name.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@\"']+@"), ""),
    (re.compile(r"(://[^\s\"'?]+)\?[^\s\"']+"), r"\1"),
    (re.compile(r"\b(?:hf_|nvapi-|gh[pousr]_|glpat-|eyJ)[\w.-]{8,}"), "…"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+|(?:token|password|secret|api[-_]?key)\s*[=:]\s*)[^\s,;\"']+"),
     r"\1…"),
)  # fmt: skip


def advise(what: str, remedy: str) -> str:
    """`what`, which may be somebody else's words, and what to do about it."""
    return f"{what.strip().rstrip('.;')}; {remedy}"


def retried(message: str, failures: int) -> str:
    """A failure that is waiting for its next attempt."""
    return f"{message} (attempt {failures} failed, will try again)"


def under_way(message: str, number: int) -> str:
    """A failure whose next attempt runs: it stands until that one has ended."""
    return f"{message} (attempt {number} is running)"


#: A terminal's own orders as a whole: without their first letter the rest would be left to read.
_ORDERS = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?)")
#: Letters that turn the direction of what follows, and so can have a text read as another one.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(words: str) -> str:
    """The words on one line, without what a terminal would obey instead of showing it."""
    text = " ".join(_ORDERS.sub("", words).split())
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter
        for letter in text
        if unicodedata.category(letter) not in ("Cc", "Cs") and letter not in _TURNING
    )


def quote(words: object, limit: int = 400) -> str:
    """Somebody else's words on one line, without what looks like a secret.

    Long ones are cut in the middle: the beginning says what, the end says why.
    """
    # First of all: a secret must not hide behind letters that nobody sees.
    text = printable(str(words or ""))
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    if len(text) <= limit:
        return text
    end = limit // 2
    return f"{text[: limit - end - 3]} … {text[-end:]}"
