"""Models in a directory: mounted claims, files copied out of an image, a local path.

The revision is the tree hash of the needed files, so a copy with another README is the same model.
"""

import hashlib
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from engine_builder.config_files import LOGIT_SCORE, LOGIT_SCORE_FOLDER
from engine_builder.errors import StageError
from engine_builder.files import check_size, read_bounded, readable
from engine_builder.progress import Progress, human_size
from engine_builder.sources.base import Snapshot
from engine_builder.sources.selection import (
    INDEX,
    Content,
    Selection,
    check_total,
    select_files,
)
from engine_builder.sources.tree import Claim, ModelTree
from reranker_contracts import StageReason, tree_digest_of

_CHUNK = 1 << 20


class DirectorySource:
    """A directory that is read where it lies."""

    def __init__(
        self, directory: Path, name: str, claim: Claim | None = None, content: Content = "model"
    ) -> None:
        self._directory = directory
        self._name = name
        self._claim = claim
        self._content = content

    @property
    def name(self) -> str:
        """Last part of the URI or path."""
        return self._name

    def resolve(self, revision: str | None, scratch: Path) -> Snapshot:
        """Hash the needed files; another `revision` than theirs is SourceChanged.

        What is judged later are the very bytes that were hashed: copies in `scratch`.
        """
        tree = ModelTree(self._directory, self._claim)
        selection = _select(tree, self._content)
        digests = [(name, _copy(tree, name, scratch / name)[0]) for name in selection.metadata]
        digests += [(name, _copy(tree, name, None)[0]) for name in selection.weights]
        found = tree_digest_of(digests)
        self._expect(revision, found)
        return Snapshot(revision=found, metadata=scratch)

    def fetch(self, revision: str, out: Path, progress: Progress) -> None:
        """Copy the needed files; what was copied is what is hashed and compared."""
        tree = ModelTree(self._directory, self._claim)
        names = _select(tree, self._content).all
        digests, total = [], 0
        with progress.step(f"copying {len(names)} files"):
            for name in names:
                digest, size = _copy(tree, name, out / name)
                digests.append((name, digest))
                total += size
                progress.tick(len(digests), len(names), f"files, {human_size(total)}")
        self._expect(revision, tree_digest_of(digests))

    @staticmethod
    def _expect(wanted: str | None, found: str) -> None:
        if wanted is not None and wanted != found:
            raise StageError(
                StageReason.SOURCE_CHANGED,
                f"the files are {found} by now, expected {wanted}; resolve the model again",
            )


def _select(tree: ModelTree, content: Content) -> Selection:
    def read_index() -> bytes:
        with tree.open(INDEX) as stream:
            return read_bounded(INDEX, stream)

    names = tree.names()
    if LOGIT_SCORE_FOLDER in names and os.path.lexists(tree.folder / LOGIT_SCORE):
        names.add(LOGIT_SCORE)
    selection = select_files(names, read_index, content)
    sizes = {}
    for name in selection.all:
        with tree.open(name) as stream:
            sizes[name] = os.fstat(stream.fileno()).st_size
    check_total(sizes)
    return selection


def _copy(tree: ModelTree, name: str, target: Path | None) -> tuple[str, int]:
    """sha256 and size of what was read, and copied to `target` if there is one."""
    digest, size = hashlib.sha256(), 0
    if target is not None:
        target.parent.mkdir(exist_ok=True)
    with tree.open(name) as source, (target or Path(os.devnull)).open("wb") as copy:
        for chunk in _chunks(name, source):
            digest.update(chunk)
            copy.write(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _chunks(name: str, stream: BufferedReader) -> Iterator[bytes]:
    """All of a file, as large as it is now: one that grows meanwhile is not read for ever."""
    left = os.fstat(stream.fileno()).st_size
    check_size(name, left)
    while left > 0:
        with readable(name):
            chunk = stream.read(min(_CHUNK, left))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
