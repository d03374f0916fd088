"""How messages are put together: one sentence of what happened, then one remedy."""

import re

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


def quote(words: object, limit: int = 400) -> str:
    """Somebody else's words on one line, without what looks like a secret.

    Long ones are cut in the middle: the beginning says what, the end says why.
    """
    text = " ".join(str(words or "").split())
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    if len(text) <= limit:
        return text
    end = limit // 2
    return f"{text[: limit - end - 3]} … {text[-end:]}"
