"""Runs a step on untrusted files in a process of its own, bounded in time and memory.

A model's tokenizer or configuration can make the libraries that read it loop, take all memory or
abort. Then the child dies of it, and the stage lives to say why.
"""

import contextlib
import json
import os
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from engine_builder.errors import StageError
from reranker_contracts import StageReason

#: A vocabulary of 250,000 words takes some seconds.
CPU_SECONDS = 60
MEMORY = 4 << 30
#: Seconds in all for each second of processor time: a child that only waits ends too, and one on a
#: busy machine is given the time.
PATIENCE = 10


def on_trial(
    what: str,
    work: Callable[[], Any],
    *,
    cpu_seconds: int = CPU_SECONDS,
    memory: int = MEMORY,
) -> Any:
    """The JSON value that `work` returns in a child process, with `memory` bytes more than now.

    Its StageError is raised here too; any other failure, and a child that exceeds a limit, is
    ModelInvalid of `what`.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Threads of numeric libraries are about; the child does not use them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        _child(writer, work, cpu_seconds, memory)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        kind, value = json.loads(answer)
    except ValueError:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{what}: reading it takes more than {cpu_seconds} s of processor time, "
            f"{PATIENCE * cpu_seconds} s in all or {memory >> 20} MiB of memory; use the files of "
            "a model that loads elsewhere",
        ) from None
    if kind == "failed":
        reason, message = value
        raise StageError(StageReason(reason), message)
    if kind == "error":
        raise StageError(
            StageReason.MODEL_INVALID, f"{what}: cannot be used ({value}); save the model anew"
        )
    return value


def _child(writer: int, work: Callable[[], Any], cpu_seconds: int, memory: int) -> NoReturn:
    """Leaves by os._exit: nothing of the parent's is flushed or cleaned up twice."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE * cpu_seconds)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        limit = _data_bytes() + memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        # A pool has one thread for each of the node's cores, and each its own memory.
        os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
        answer = json.dumps(_outcome(work)).encode()
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _outcome(work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "value", work()
    except StageError as error:
        return "failed", [error.reason, error.message]
    # Panics of Rust are no Exception. Without an answer the parent speaks of the limits.
    except BaseException as error:
        if isinstance(error, MemoryError):
            raise
        lines = str(error).strip().splitlines()
        return "error", f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _data_bytes() -> int:
    """Writable private memory of this process, which is what RLIMIT_DATA counts."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
    return pages * resource.getpagesize()
