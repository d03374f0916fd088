"""Reading files that strangers made, and the directories that stages write.

A source may come from anyone: every read is of a regular file, never through a link, and bounded.
"""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from engine_builder.errors import StageError, UsageError, write_failure
from reranker_contracts import StageReason

#: Bytes. Far above what real models have; `tokenizer.json` of a 250,000-word vocabulary is 17 MB.
JSON_LIMITS = {"config.json": 1 << 20, "tokenizer.json": 64 << 20}
DEFAULT_JSON_LIMIT = 16 << 20
#: Weights are bounded in sum, not by themselves.
WEIGHTS = ".safetensors"

#: What the system says of a name, whenever it is asked; all else is trouble of the volume.
_OF_THE_NAME = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL),
    *(errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM),
}

#: Left in directories that a stage made, so that a restarted stage may empty them.
OUTPUT_MARKER = ".engine-builder-output"


@contextmanager
def readable(what: Path | str) -> Iterator[None]:
    """Tell trouble of the volume, which passes, from what is wrong with a name."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in _OF_THE_NAME:
            raise
        raise StageError(
            StageReason.SOURCE_UNREACHABLE,
            f"{what}: the volume does not answer ({error.strerror}); check the volume and the "
            "node that it is mounted on",
        ) from error


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading; a link, pipe or device is refused as ModelInvalid."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its writer for ever.
        with readable(path.name):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StageError(
            StageReason.MODEL_INVALID, f"{path.name} is missing; copy the model's files again"
        ) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_regular(path) from None
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{path.name} cannot be read ({error.strerror}); check the volume and the file's mode",
        ) from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_regular(path)
        yield stream


def _not_regular(path: Path) -> StageError:
    return StageError(
        StageReason.MODEL_INVALID,
        f"{path.name} is not a regular file; copy the model with links resolved (`cp -rL`)",
    )


def check_size(name: str, size: int, limit: int | None = None) -> None:
    """Refuse a metadata file that is far larger than any real model's."""
    limit = limit or JSON_LIMITS.get(name, DEFAULT_JSON_LIMIT)
    if size > limit and not name.endswith(WEIGHTS):
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{name} has {size} bytes, at most {limit} are allowed; use the model's own file",
        )


def read_metadata(path: Path) -> bytes:
    """The bytes of a metadata file, at most its limit in JSON_LIMITS."""
    with open_regular(path) as stream:
        return read_bounded(path.name, stream)


def read_bounded(name: str, stream: BufferedReader, limit: int | None = None) -> bytes:
    """All of an open metadata file, at most `limit` bytes or its own limit in JSON_LIMITS."""
    check_size(name, os.fstat(stream.fileno()).st_size, limit)
    with readable(name):
        data = stream.read((limit or JSON_LIMITS.get(name, DEFAULT_JSON_LIMIT)) + 1)
    check_size(name, len(data), limit)
    return data


def parse_json_object(name: str, data: bytes) -> dict[str, object]:
    """`data` as a JSON object; anything else is ModelInvalid."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{name} is not JSON ({str(error)[:120]}); copy the model's files again",
        ) from error
    if not isinstance(value, dict):
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{name} holds a {type(value).__name__}, not an object; copy the model's files again",
        )
    return value


def make_directory(directory: Path) -> None:
    """Make the directory that --out names, and those above it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        known = write_failure(error, directory)
        if known is not None:
            raise known from error
        problem = error.strerror
        if isinstance(error, FileExistsError | NotADirectoryError):
            problem = "is or lies in a file"
        raise UsageError(
            f"--out {directory}: {problem}; name a directory that can be made"
        ) from error


def make_output(directory: Path) -> Path:
    """Create an empty output directory.

    What an earlier, interrupted run of a stage left there is removed; a directory with anybody
    else's files is a UsageError.
    """
    make_directory(directory)
    entries = list(directory.iterdir())
    if entries and not (directory / OUTPUT_MARKER).is_file():
        raise UsageError(f"--out {directory}: holds other files; name an empty or new directory")
    # Emptied first: what it told of an earlier run's output is no longer true.
    (directory / OUTPUT_MARKER).write_bytes(b"")
    for entry in entries:
        if entry.name == OUTPUT_MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return directory
