"""Progress lines for people who read the log of a stage."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_SECONDS = 10


class Progress:
    """Prints `[seconds] stage: text` lines to standard output."""

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.stage = stage
        self._clock = clock
        self._started = clock()
        self._last_tick = self._started

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self._started

    def say(self, text: str) -> None:
        """Print one line."""
        print(f"[{self.seconds:7.1f} s] {self.stage}: {text}", flush=True)

    def tick(self, done: int, total: int, what: str) -> None:
        """How far a long step is; prints at most every TICK_SECONDS."""
        if self._clock() - self._last_tick >= TICK_SECONDS:
            self._last_tick = self._clock()
            self.say(f"{done} of {total} {what}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step that may take a while and say how long it took."""
        self.say(f"{text} ...")
        began = self._clock()
        yield
        self.say(f"{text}: done in {self._clock() - began:.1f} s")


def human_size(size: int) -> str:
    """Bytes as people read them: `91.2 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
