"""Models in a directory: mounted claims, files copied out of an image, a local path.

The revision is the tree hash of the needed files, so a copy with another README is the same model.
"""

import hashlib
from pathlib import Path

from engine_builder.errors import StageError
from engine_builder.files import open_regular, read_metadata
from engine_builder.progress import Progress, human_size
from engine_builder.sources.base import Snapshot
from engine_builder.sources.selection import INDEX, Selection, select_files
from reranker_contracts import StageReason, tree_digest_of

_CHUNK = 1 << 20


class DirectorySource:
    """A directory that is read where it lies."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name

    @property
    def name(self) -> str:
        """Last part of the URI or path."""
        return self._name

    def resolve(self, revision: str | None, scratch: Path) -> Snapshot:
        """Hash the needed files; another `revision` than theirs is SourceChanged."""
        found = tree_digest_of((name, self._hash(name)) for name in self._select().all)
        self._expect(revision, found)
        return Snapshot(revision=found, metadata=self._directory)

    def fetch(self, revision: str, out: Path, progress: Progress) -> None:
        """Copy the needed files; what was copied is what is hashed and compared."""
        digests = []
        for name in self._select().all:
            digest, size = self._copy(name, out / name)
            digests.append((name, digest))
            progress.say(f"{name} ({human_size(size)})")
        self._expect(revision, tree_digest_of(digests))

    def _select(self) -> Selection:
        try:
            names = {entry.name for entry in self._directory.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            raise StageError(
                StageReason.SOURCE_NOT_FOUND,
                f"{self._directory}: there is no such directory; check the path in model.source",
            ) from None
        except PermissionError:
            raise StageError(
                StageReason.SOURCE_UNAUTHORIZED,
                f"{self._directory}: may not be read by this user; check mode and fsGroup",
            ) from None
        return select_files(names, lambda: read_metadata(self._directory / INDEX))

    def _hash(self, name: str) -> str:
        with open_regular(self._directory / name) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _copy(self, name: str, target: Path) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        with open_regular(self._directory / name) as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
                size += len(chunk)
        return digest.hexdigest(), size

    @staticmethod
    def _expect(wanted: str | None, found: str) -> None:
        if wanted is not None and wanted != found:
            raise StageError(
                StageReason.SOURCE_CHANGED,
                f"the files are {found} by now, expected {wanted}; resolve the model again",
            )
