"""Progress at a terminal: one line that moves, and the finished steps above it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from engine_builder.errors import printable
from engine_builder.progress import Progress


class TerminalProgress(Progress):
    """Draws the running step as a spinner, and as a bar from its first tick on."""

    def __init__(
        self,
        stage: str,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__(stage, clock, stream)
        self._console = Console(file=stream or sys.stdout, highlight=False)
        self._bars: Bars | None = None

    def tick(self, done: int, total: int, what: str) -> None:
        """Move the bar of the running step, if there is one."""
        if self._bars is None:
            super().tick(done, total, what)
            return
        (task,) = self._bars.task_ids
        self._bars.update(task, completed=done, total=total, what=printable(what))

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show a step while it goes on, and how long it took when it is done."""
        if self._bars is not None:
            yield
            return
        began = self._clock()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[what]}", markup=False),
            TimeElapsedColumn(),
        )
        try:
            with Bars(*columns, console=self._console, transient=True) as self._bars:
                self._bars.add_task(printable(text), total=None, what="")
                yield
        finally:
            self._bars = None
        self.say(f"{text}: done in {self._clock() - began:.1f} s")

    def _print(self, line: str, stream: TextIO) -> None:
        self._console.print(line, markup=False, soft_wrap=True)
