"""A folder for work files, below TMPDIR."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from engine_builder.errors import FULL, StageError
from reranker_contracts import StageReason

_PREFIX = "engine-build-"


@contextmanager
def work_directory(name: str | None = None) -> Iterator[Path]:
    """A folder that is removed at the end; those of processes that were killed go first.

    With a `name` it is the one that a killed process of this name left, with what it had done. A
    lock tells who lives: it ends with its process, however that ends. Raises StageError when there
    is no room, or no folder that can be written.
    """
    _check_named()
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise StageError(
            StageReason.STORE_UNWRITABLE,
            "no folder for work files has room and can be written; set TMPDIR to one, or mount a "
            "volume at /tmp",
        ) from None
    kept = folder / f"{_PREFIX}{name}" if name else None
    _sweep(folder, kept)
    work: Path | None = None
    try:
        with _taken(kept) as work:
            yield work
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StageError(
            StageReason.STORE_FULL,
            f"{folder}: no space left for work files; make room there, or set TMPDIR to a folder "
            "that has it",
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _check_named() -> None:
    """Python passes over a TMPDIR that can't be used, and would fill some other folder."""
    named = os.environ.get("TMPDIR")
    if not named:
        return
    try:
        with tempfile.TemporaryFile(dir=named, buffering=0) as file:
            file.write(b"room")
    except OSError as error:
        full = error.errno in FULL
        raise StageError(
            StageReason.STORE_FULL if full else StageReason.STORE_UNWRITABLE,
            f"TMPDIR {named}: no work files can be written there ({error.strerror}); set it to a "
            "folder that has room and can be written",
        ) from error


@contextmanager
def _taken(kept: Path | None) -> Iterator[Path]:
    """`kept` where nobody else works in it, a new folder otherwise; locked."""
    with ExitStack() as stack:
        work = None
        if kept is not None:
            with suppress(FileExistsError):
                kept.mkdir(mode=0o700)
            # Somebody else's folder, or link, of this name is left alone.
            with suppress(OSError):
                if kept.lstat().st_uid == os.getuid():
                    stack.enter_context(_locked(kept))
                    work = kept
        if work is None:
            work = Path(tempfile.mkdtemp(prefix=_PREFIX))
            stack.enter_context(_locked(work))
        yield work


def _sweep(folder: Path, kept: Path | None) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        if left == kept:
            continue
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
