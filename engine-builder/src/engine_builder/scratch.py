"""A folder for work files, below TMPDIR."""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine_builder.errors import StageError
from reranker_contracts import StageReason

_PREFIX = "engine-build-"


@contextmanager
def work_directory() -> Iterator[Path]:
    """A new folder that is removed at the end; those of processes that were killed go first.

    A lock tells them: it ends with its process, however that ends. Raises StageError when there is
    no room, or no folder that can be written.
    """
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise StageError(
            StageReason.STORE_UNWRITABLE,
            "no folder for work files has room and can be written; set TMPDIR to one, or mount a "
            "volume at /tmp",
        ) from None
    _sweep(folder)
    work: Path | None = None
    try:
        work = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with _locked(work):
            yield work
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StageError(
            StageReason.STORE_FULL,
            f"{folder}: no space left for work files; make room there, or set TMPDIR to a folder "
            "that has it",
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(left):
            # A moment lies between the making of a folder and its lock.
            if left.stat().st_mtime < time.time() - 60:
                shutil.rmtree(left)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a folder; BlockingIOError when another process does."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
