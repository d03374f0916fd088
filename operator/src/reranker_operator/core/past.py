"""Times that another process has written down, whose clock was ahead or has been put back since."""


def past(time: float | None, now: float) -> float | None:
    """The time, or now where it would be later: else what waits for it to pass waits too long."""
    return None if time is None else min(time, now)
