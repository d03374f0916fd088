"""How messages are put together: one sentence of what happened, then one remedy."""


def advise(what: str, remedy: str) -> str:
    """`what`, which may be somebody else's words, and what to do about it."""
    return f"{what.strip().rstrip('.;')}; {remedy}"


def retried(message: str, failures: int) -> str:
    """A failure that is waiting for its next attempt."""
    return f"{message} (attempt {failures} failed, will try again)"
