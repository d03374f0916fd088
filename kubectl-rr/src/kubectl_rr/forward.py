"""A `kubectl port-forward` for as long as one request takes; it never outlives the plugin."""

import queue
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kubectl_rr.errors import RequestFailed, Unusable
from kubectl_rr.terminal import clean

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")


class Forward:
    """The running kubectl: its local port, and what it said last."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._last: deque[str] = deque(maxlen=3)
        # For as long as kubectl lives: it would stop when nobody takes what it says.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def port(self) -> int:
        """Wait for the local port. Raises RequestFailed."""
        while True:
            try:
                line = self._lines.get(timeout=_START_SECONDS)
            except queue.Empty:
                raise RequestFailed(
                    f"kubectl port-forward did not start within {_START_SECONDS:.0f} s"
                ) from None
            if line is None:
                raise RequestFailed(f"kubectl port-forward ended: {self.last_words()}")
            found = _FORWARDING.search(line)
            if found:
                return int(found[1])

    def last_words(self) -> str:
        """What kubectl said last, for an error."""
        said = clean(" ".join(self._last))
        return said.removeprefix("error: ") or "it said nothing"

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_STOP_SECONDS)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._last.append(line.strip())
            self._lines.put(line)
        self._lines.put(None)


@contextmanager
def port_forward(service: str, port: int, options: Sequence[str]) -> Iterator[Forward]:
    """Forward a free local port to a Service. Raises Unusable without a kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise Unusable("kubectl is not on the PATH")
    process = subprocess.Popen(
        [
            kubectl,
            "port-forward",
            *options,
            "--address=127.0.0.1",
            f"service/{service}",
            f":{port}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    forward = Forward(process)
    try:
        yield forward
    finally:
        forward.stop()
