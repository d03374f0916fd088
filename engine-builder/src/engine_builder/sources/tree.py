"""Files in a directory that anyone may have filled: bounded, and never from outside of it.

Links are followed inside the tree only, because a hub's cache is made of them: each file of
`snapshots/<revision>/` is a link into `blobs/`. What was opened is judged, not what a path said
before: the tree may change meanwhile.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from engine_builder.errors import StageError
from engine_builder.files import read_bounded, readable
from reranker_contracts import StageReason

#: In one folder. Models have a few dozen.
MAX_FILES = 10_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Claim:
    """A mounted volume claim and the path on it that a source names."""

    name: str
    path: str
    mount: Path

    @property
    def folder(self) -> Path:
        """Where the model should lie."""
        return self.mount / self.path


class ModelTree:
    """The folder of a model and the tree around it that its links may lead to."""

    def __init__(self, directory: Path, claim: Claim | None = None) -> None:
        folder = _resolved(directory) if claim is None else _on_claim(claim)
        self.root = folder
        snapshots = folder.parent
        if snapshots.name == "snapshots" and (snapshots.parent / "blobs").is_dir():
            self.root = snapshots.parent
        self.folder = folder
        names = self.names()
        if "config.json" not in names and {"blobs", "snapshots"} <= names:
            self.folder = _resolved(folder / "snapshots" / self._cached_revision())
            if not self.folder.is_relative_to(self.root):
                raise _outside(folder / "snapshots", self.folder, self.root)

    def names(self) -> set[str]:
        """Names in the model's folder."""
        return _listed(self.folder)

    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """Open a file of the model; one that is missing, outside or not a file is ModelInvalid."""
        path = self.folder / name
        # O_PATH opens nothing yet: no pipe waits for its writer, no device notices.
        with _explained(path):
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            link = Path(f"/proc/self/fd/{handle}")
            real = link.readlink()
            if not real.is_relative_to(self.root):
                raise _outside(path, real, self.root)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise StageError(
                    StageReason.MODEL_INVALID,
                    f"{name} is not a regular file; replace it by the model's own",
                )
            with _explained(path):
                descriptor = os.open(link, os.O_RDONLY | _FLAGS)
        finally:
            os.close(handle)
        with os.fdopen(descriptor, "rb") as stream:
            yield stream

    def _cached_revision(self) -> str:
        """The one of a hub's cache: what `main` was when it was downloaded, or the only one."""
        if (self.folder / "refs" / "main").is_file():
            with self.open("refs/main") as stream:
                revision = read_bounded("refs/main", stream, 100).decode("ascii", "replace").strip()
            if _COMMIT.fullmatch(revision):
                return revision
        revisions = sorted(_listed(self.folder / "snapshots"))
        if len(revisions) != 1:
            raise StageError(
                StageReason.SOURCE_NOT_FOUND,
                f"{self.folder}/snapshots holds {len(revisions)} revisions and refs/main names "
                "none; name the path of one of them",
            )
        return revisions[0]


def _on_claim(claim: Claim) -> Path:
    """The path may be made of links, but what they lead to has to be on the claim."""
    try:
        with readable(f"{claim.path or '/'} on claim {claim.name}"):
            folder = claim.folder.resolve(strict=True)
    except PermissionError:
        raise _unreadable(f"{claim.path} on claim {claim.name}") from None
    except (OSError, RuntimeError):
        raise _not_on_claim(claim) from None
    if not folder.is_relative_to(_resolved(claim.mount)):
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{claim.path} on claim {claim.name} leads to {str(folder)[:200]}, outside of the "
            "claim; name the model's own folder in spec.model.source",
        )
    if not folder.is_dir():
        raise _not_on_claim(claim)
    return folder


def _not_on_claim(claim: Claim) -> StageError:
    return StageError(
        StageReason.SOURCE_NOT_FOUND,
        f"there is no folder {claim.path or '/'} on claim {claim.name}; correct the path in "
        "spec.model.source, pvc://CLAIM/PATH, or put the model there",
    )


def _resolved(directory: Path) -> Path:
    try:
        with readable(directory):
            return directory.resolve(strict=True)
    except PermissionError:
        raise _unreadable(directory) from None
    # RuntimeError: a link that leads back to itself, up to Python 3.12.
    except (OSError, RuntimeError):
        raise _no_directory(directory) from None


def _listed(directory: Path) -> set[str]:
    names: set[str] = set()
    try:
        with readable(directory), os.scandir(directory) as entries:
            for entry in entries:
                names.add(entry.name)
                if len(names) > MAX_FILES:
                    raise StageError(
                        StageReason.MODEL_INVALID,
                        f"{directory} holds more than {MAX_FILES} files; name the model's own "
                        "folder",
                    )
    except (FileNotFoundError, NotADirectoryError):
        raise _no_directory(directory) from None
    except PermissionError:
        raise _unreadable(directory) from None
    return names


def _unreadable(path: Path | str) -> StageError:
    return StageError(
        StageReason.SOURCE_UNAUTHORIZED,
        f"{path}: may not be read by this user; check mode and fsGroup",
    )


def _no_directory(directory: Path) -> StageError:
    return StageError(
        StageReason.SOURCE_NOT_FOUND, f"{directory}: there is no such directory; check the path"
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Translate why a file cannot be opened."""
    name = path.name
    try:
        with readable(name):
            yield
    except PermissionError:
        raise _unreadable(name) from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        if error.errno == errno.ENOENT:
            problem = "is missing from the model's files"
        if path.is_symlink():
            problem = f"is a link to {str(path.readlink())[:200]}, where nothing can be read"
            if error.errno == errno.ELOOP:
                problem = "is a link that leads back to itself"
        raise StageError(
            StageReason.MODEL_INVALID, f"{name} {problem}; copy all of the model's files"
        ) from error


def _outside(path: Path, real: Path, root: Path) -> StageError:
    shown = path.readlink() if path.is_symlink() else real
    return StageError(
        StageReason.MODEL_INVALID,
        f"{path.name} is a link to {str(shown)[:200]}, outside of {root}; copy the model with its "
        "links resolved (`cp -rL`), or name the folder that holds both (of a hub's cache: the one "
        "with blobs and snapshots)",
    )
