"""Progress lines for people who read the log of a stage; bars for those at a terminal."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from engine_builder.errors import printable

#: Seconds of silence after which a step that knows says how far it is, or any that it goes on.
TICK_SECONDS = 3
ALIVE_SECONDS = 5


class Progress:
    """Prints `[seconds] stage: text` lines to standard output, or to `stream`."""

    def __init__(
        self,
        stage: str,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        self.stage = stage
        self._clock = clock
        self._stream = stream
        self._started = clock()
        self._last_line = self._started

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self._started

    def say(self, text: str) -> None:
        """Print one line, whatever a stranger's names hold."""
        self._last_line = self._clock()
        stream = self._stream or sys.stdout
        try:
            self._print(f"[{self.seconds:7.1f} s] {self.stage}: {printable(text)}", stream)
        except OSError:
            # Who read along has left (`| head`), or the log's disk is full: the work goes on, and
            # so does Python's own last flush.
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())

    def _print(self, line: str, stream: TextIO) -> None:
        print(line, file=stream, flush=True)

    def tick(self, done: int, total: int, what: str) -> None:
        """How far a long step is; prints at most every TICK_SECONDS."""
        if self._clock() - self._last_line >= TICK_SECONDS:
            self.say(f"{done} of {total} {what}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step that may take a while, say that it goes on and how long it took."""
        self.say(f"{text} ...")
        began = self._clock()
        ended = threading.Event()
        # A thread, because most steps are one call into a library.
        watch = threading.Thread(target=self._watch, args=(text, began, ended), daemon=True)
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()
        self.say(f"{text}: done in {self._clock() - began:.1f} s")

    def _watch(self, text: str, began: float, ended: threading.Event) -> None:
        while not ended.wait(ALIVE_SECONDS):
            if self._clock() - self._last_line >= ALIVE_SECONDS:
                self.say(f"{text}: {self._clock() - began:.0f} s so far")


def human_size(size: int) -> str:
    """Bytes as people read them: `91.2 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
