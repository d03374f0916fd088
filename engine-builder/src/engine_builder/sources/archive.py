"""A model in a tar archive at an https:// address, pinned by the archive's sha256.

Nothing of an archive is looked at before its hash is right. Then files are written one by one
under their plain names; links, devices and paths that leave the archive are never followed or
made. What unpacking may cost is bounded: entries, bytes written and bytes unpacked.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from engine_builder.errors import StageError, UsageError
from engine_builder.files import check_size
from engine_builder.progress import Progress
from engine_builder.sources.base import Snapshot
from engine_builder.sources.selection import (
    INDEX,
    MARKERS,
    MAX_BYTES,
    NESTED,
    Content,
    Selection,
    check_total,
    select_files,
)
from engine_builder.sources.tree import MAX_FILES
from engine_builder.transfer import Place, Wanted, download, new_client
from reranker_contracts import StageReason

_REVISION = re.compile(r"sha256:([0-9a-f]{64})")
#: Bytes that unpacking may give, headers and unneeded files included.
MAX_UNPACKED = 2 * MAX_BYTES
#: Bytes of all extensions of one entry (long names, attributes), which tarfile reads into memory.
_MAX_EXTENSIONS = 64 << 10
#: Bytes of a path, as Linux has it.
_MAX_PATH = 4096
_CHUNK = 1 << 20
#: No file of a model has this name.
_ARCHIVE = ".archive"
_NO_ARCHIVE = (
    *(tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(ValueError, OverflowError, RecursionError),
)
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))


class ArchiveSource:
    """One archive."""

    def __init__(self, url: str, name: str, content: Content = "model") -> None:
        self._url = url
        self._name = name
        self._content = content
        self._place = Place(
            url,
            "the server",
            "it must give the archive without a login; use s3:// or oci:// for private models",
            "check the address in spec.model.source",
        )

    @property
    def name(self) -> str:
        """Name of the archive without its endings."""
        return self._name

    def resolve(self, revision: str | None, scratch: Path) -> Snapshot:
        """Download, check the hash that was given, and unpack the configuration."""
        wanted = _required(self._url, revision)
        archive = scratch / _ARCHIVE
        try:
            self._download(wanted, archive, Progress("resolve"))
            with _Tar(archive, self._url, self._content) as tar:
                selection = tar.select(scratch)
                tar.extract(selection.metadata, scratch)
        finally:
            archive.unlink(missing_ok=True)
        return Snapshot(revision=f"sha256:{wanted}", metadata=scratch)

    def fetch(self, revision: str, out: Path, progress: Progress) -> None:
        """Download, check the hash, and unpack the needed files."""
        wanted = _required(self._url, revision)
        archive = out / _ARCHIVE
        try:
            with progress.step(f"downloading {self._url}"):
                self._download(wanted, archive, progress)
            with progress.step("unpacking"), _Tar(archive, self._url, self._content) as tar:
                tar.extract(tar.select(out).all, out)
        finally:
            archive.unlink(missing_ok=True)

    def _download(self, sha256: str, target: Path, progress: Progress) -> None:
        with new_client(tls_only=True) as client:
            wanted = Wanted("the archive", limit=MAX_BYTES, sha256=sha256)
            download(client, self._url, target, wanted, place=self._place, progress=progress)


def _required(url: str, revision: str | None) -> str:
    found = _REVISION.fullmatch(revision or "")
    if found is None:
        raise UsageError(
            f"{url}: an archive needs its hash; give --revision sha256:HEX (spec.model.revision), "
            "as `sha256sum` prints it"
        )
    return found[1]


class _Limited(io.RawIOBase):
    """Reads of an unpacked stream, up to a limit: a small archive can unpack to terabytes."""

    def __init__(self, stream: IO[bytes], limit: int, about: str) -> None:
        self._stream = stream
        self._left = limit
        self._about = about

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 64 << 20:
            size = 64 << 20
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _invalid(self._about, f"unpacks to more than {MAX_UNPACKED >> 30} GiB")
        return data


class _Entry(tarfile.TarInfo):
    """A header whose extensions are bounded; maps of holes in files have no bound."""

    def _proc_member(self, tar: "_Stream") -> tarfile.TarInfo:
        extension = self.type in (
            *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
            *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        )
        if extension:
            tar.extensions += self.size
        if tar.extensions > _MAX_EXTENSIONS:
            raise tarfile.HeaderError("the extensions of a header are too large")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.HeaderError("a file with holes")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.HeaderError("a file with holes")


class _Stream(tarfile.TarFile):
    """Remembers nothing of the entries that it has passed."""

    tarinfo = _Entry
    #: Bytes of them since the last entry.
    extensions = 0

    def next(self) -> tarfile.TarInfo | None:
        self.members.clear()  # type: ignore[attr-defined]
        self.pax_headers = {}
        self.extensions = 0
        return super().next()


class _Tar:
    """An archive on disk, read in one direction as often as needed."""

    def __init__(self, path: Path, about: str, content: Content) -> None:
        self._path = path
        self._about = about
        self._content = content
        self._sizes: dict[str, int] = {}
        self._root = PurePosixPath()

    def __enter__(self) -> "_Tar":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between two passes."""

    def select(self, folder: Path) -> Selection:
        """The needed files of the model in it; `folder` gets its index, if it has one."""
        self._list()
        names = dict(self._sizes)

        def read_index() -> bytes:
            self.extract([INDEX], folder)
            return (folder / INDEX).read_bytes()

        selection = select_files(names, read_index, self._content)
        check_total({name: names[name] for name in selection.all})
        return selection

    def extract(self, names: tuple[str, ...] | list[str], folder: Path) -> None:
        """Write the files of these plain names into `folder`."""
        missing = {name for name in names if not (folder / name).exists()}
        if not missing:
            return
        for member, stream in self._members():
            name = self._in_root(PurePosixPath(member.name))
            if name is not None and name in missing and member.isreg():
                check_size(name, member.size)
                source = stream.extractfile(member)
                if source is None:
                    raise _invalid(self._about, f"{name} can't be read")
                (folder / name).parent.mkdir(exist_ok=True)
                with (folder / name).open("xb") as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
                if (folder / name).stat().st_size != member.size:
                    raise _invalid(self._about, f"{name} is cut short")
                missing.discard(name)

    def _list(self) -> None:
        """Find the model's folder, the shallowest with its marker, and the sizes in it."""
        files: dict[PurePosixPath, int] = {}
        links: set[PurePosixPath] = set()
        for member, _stream in self._members():
            path = _plain_path(self._about, member)
            if member.isreg():
                if path in files:
                    raise _invalid(self._about, f"two entries are named {str(path)[:100]}")
                files[path] = member.size
            elif member.issym() or member.islnk():
                links.add(path)
            elif not member.isdir():
                raise _invalid(self._about, f"{str(path)[:100]} is a device or pipe")
        roots = sorted(
            (path.parent for path in files if path.name == MARKERS[self._content]),
            key=lambda root: (len(root.parts), str(root)),
        )
        if len(roots) > 1 and len(roots[0].parts) == len(roots[1].parts):
            raise _invalid(self._about, "several folders hold a model")
        self._root = roots[0] if roots else PurePosixPath()
        self._sizes = {
            name: size for path, size in files.items() if (name := self._in_root(path)) is not None
        }
        for name in sorted(filter(None, map(self._in_root, links))):
            if name.endswith((".json", ".txt", ".jinja", ".safetensors")):
                raise _invalid(self._about, f"{name[:100]} is a link")

    def _in_root(self, path: PurePosixPath) -> str | None:
        """The name of a file that may be needed, as the model's folder has it."""
        if not path.is_relative_to(self._root):
            return None
        name = str(path.relative_to(self._root))
        return name if "/" not in name or name in NESTED else None

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        """Every entry, in order, with the archive that its content is read from."""
        with self._explained(), self._unpacked() as raw:
            stream = _Limited(raw, MAX_UNPACKED, self._about)
            with _Stream.open(fileobj=stream, mode="r|") as tar:
                for number, member in enumerate(tar):
                    if number >= MAX_FILES:
                        raise _invalid(self._about, f"holds more than {MAX_FILES} entries")
                    yield member, tar
            # The checksum of a compressed stream is at its end.
            while stream.read(_CHUNK):
                pass

    @contextmanager
    def _unpacked(self) -> Iterator[IO[bytes]]:
        with self._path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            opener = next((opener for magic, opener in _OPENERS if start.startswith(magic)), None)
            if opener is None:
                yield file
                return
            with opener(file, "rb") as unpacked:
                yield unpacked  # type: ignore[misc]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except _NO_ARCHIVE as error:
            raise _invalid(self._about, f"is no tar archive ({type(error).__name__})") from error


def _plain_path(about: str, member: tarfile.TarInfo) -> PurePosixPath:
    if len(member.name) > _MAX_PATH:
        raise _invalid(about, f"{member.name[:100]!r} … is longer than a path may be")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise _invalid(about, f"{member.name[:100]!r} leads out of it")
    return path


def _invalid(about: str, problem: str) -> StageError:
    return StageError(
        StageReason.MODEL_INVALID,
        f"{about}: {problem}; pack only the model's folder, as `tar -czhf model.tar.gz FOLDER`",
    )
