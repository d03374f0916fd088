"""Sources that list their files with a mark of each one's content: buckets and catalogues.

The revision is a hash over names and marks of the needed files, so it is found without reading the
weights, and a file of another mark is another revision.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine_builder.errors import StageError
from engine_builder.files import check_size, read_metadata
from engine_builder.progress import Progress, human_size
from engine_builder.sources.base import Snapshot
from engine_builder.sources.selection import (
    INDEX,
    Content,
    Selection,
    check_total,
    select_files,
)
from engine_builder.sources.tree import MAX_FILES
from reranker_contracts import StageReason


@dataclass(frozen=True)
class RemoteFile:
    """One file of a source; `mark` changes with its content."""

    name: str
    size: int
    mark: str


def check_count(about: str, count: int) -> None:
    """Refuse a place that has listed more than MAX_FILES, so that no listing is without end."""
    if count > MAX_FILES:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{about} holds more than {MAX_FILES} files, those in folders below it included; name "
            "the place of the model alone",
        )


class Remote(Protocol):
    """A place that can list and give files. Its failures are StageErrors."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def about(self) -> str:
        """URI for messages."""
        ...

    def files(self) -> Iterable[RemoteFile]:
        """Files at the top level, and NESTED ones.

        Whatever is listed is counted, needed or not, by `check_count`.
        """
        ...

    def revision_of(self, files: Iterable[RemoteFile]) -> str:
        """The revision that these files make."""
        ...

    def download(self, file: RemoteFile, target: Path, progress: Progress) -> None:
        """Write exactly this file; SourceChanged when it is another by now."""
        ...


class ListedSource:
    """The Source over a Remote."""

    def __init__(self, remote: Remote, content: Content = "model") -> None:
        self._remote = remote
        self._content = content

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._remote.name

    def resolve(self, revision: str | None, scratch: Path) -> Snapshot:
        """List the files and download the configuration; another `revision` is SourceChanged."""
        progress = Progress("resolve")
        files, selection = self._select(scratch, progress)
        found = self._revision(files, selection, revision)
        for name in selection.metadata:
            self._download(files[name], scratch, progress)
        return Snapshot(revision=found, metadata=scratch)

    def fetch(self, revision: str, out: Path, progress: Progress) -> None:
        """Download the needed files of this revision."""
        files, selection = self._select(out, progress)
        self._revision(files, selection, revision)
        for name in selection.all:
            with progress.step(f"downloading {name} ({human_size(files[name].size)})"):
                self._download(files[name], out, progress)

    def _select(self, folder: Path, progress: Progress) -> tuple[dict[str, RemoteFile], Selection]:
        files = {file.name: file for file in self._remote.files()}

        def read_index() -> bytes:
            self._download(files[INDEX], folder, progress)
            return read_metadata(folder / INDEX)

        selection = select_files(files, read_index, self._content)
        check_total({name: files[name].size for name in selection.all})
        return files, selection

    def _revision(
        self, files: dict[str, RemoteFile], selection: Selection, wanted: str | None
    ) -> str:
        found = self._remote.revision_of([files[name] for name in selection.all])
        if wanted is not None and wanted != found:
            raise StageError(
                StageReason.SOURCE_CHANGED,
                f"{self._remote.about}: the files are {found} by now, expected {wanted}; resolve "
                "the model again",
            )
        return found

    def _download(self, file: RemoteFile, folder: Path, progress: Progress) -> None:
        check_size(file.name, file.size)
        target = folder / file.name
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            self._remote.download(file, target, progress)
