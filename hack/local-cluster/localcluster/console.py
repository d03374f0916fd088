"""Progress on the terminal: one line a step, with the seconds since the start.

Whatever takes longer than five seconds keeps saying so, from a wait loop or
from a long-running subprocess, because a silent terminal looks like a hang.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from localcluster.errors import ClusterError

HEARTBEAT_SECONDS = 5.0
_POLL_SECONDS = 0.1


class Console:
    """Prints progress lines to standard error, so that standard output stays for results."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since this command started."""
        return time.monotonic() - self._start

    def say(self, message: str) -> None:
        """Print one progress line."""
        print(f"[{self.elapsed:6.1f}s] {message}", file=sys.stderr, flush=True)

    def wait_for(
        self,
        what: str,
        ready: Callable[[], bool],
        *,
        timeout_seconds: float,
        explain: Callable[[], str] = lambda: "",
    ) -> None:
        """Poll ``ready`` until it is true.

        ``ready`` may raise ClusterError to give up early. Past the timeout the
        error ends with what ``explain`` returns.
        """
        began = last_beat = time.monotonic()
        while not ready():
            now = time.monotonic()
            if now - began > timeout_seconds:
                detail = explain()
                raise ClusterError(
                    f"{what}: not there after {timeout_seconds:.0f} s"
                    + (f"; {detail}" if detail else "")
                )
            if now - last_beat >= HEARTBEAT_SECONDS:
                last_beat = now
                self.say(f"  still waiting: {what} ({now - began:.0f} s)")
            time.sleep(_POLL_SECONDS)

    def run(
        self,
        what: str,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Run a command that may take minutes, its output into ``log``."""
        log.parent.mkdir(parents=True, exist_ok=True)
        began = last_beat = time.monotonic()
        with (
            log.open("wb") as output,
            subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            ) as process,
        ):
            while (status := process.poll()) is None:
                now = time.monotonic()
                if now - last_beat >= 2 * HEARTBEAT_SECONDS:
                    last_beat = now
                    self.say(f"  still running: {what} ({now - began:.0f} s)")
                time.sleep(_POLL_SECONDS)
        if status != 0:
            raise ClusterError(f"{what} failed (exit {status}): {last_lines(log)}\n  see {log}")


def last_lines(log: Path, count: int = 5) -> str:
    """Return the end of a log file, for an error message."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 8192))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return "no log was written"
    return "\n    ".join(["", *(line[:400] for line in lines[-count:])])
