"""Times that another process has written down, whose clock was ahead or has been put back since."""

import datetime
from typing import TypeVar

_Time = TypeVar("_Time", float, datetime.datetime)


def past(time: _Time | None, now: _Time) -> _Time | None:
    """The time, or now where it would be later: else what waits for it to pass waits too long."""
    return None if time is None else min(time, now)
