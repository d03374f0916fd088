"""The artefact store: a directory that many builders write and many pods read.

    prepared/<digest>/  engines/<digest>/   published; complete, or not there
    tmp/<uuid>/                             being written, or on its way out

A reader believes in a directory with a valid manifest, and such a directory comes into being by
one rename. Killed at any moment, a publish leaves at most rubbish below tmp/, which a later one
removes.

An artefact is as old as its manifest file. Publishing over an intact one makes it young again, so
that whoever tidies up by age leaves alone what somebody has just relied on.

A digest names what an engine is made from, not its bytes: one that is there may have come from a
registry. Whoever built it here publishes what was built, in place of that. Pods that run the other
one go on with the files that they have open.
"""

import contextlib
import errno
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine_builder.retention import Artefact, Retention
from reranker_contracts import ArtefactManifest, IntegrityError, verify_artefact, write_manifest
from reranker_contracts.manifest import MANIFEST

#: Seconds without a change after which something below tmp/ is taken for abandoned.
ABANDONED_AFTER = 3600

KINDS = {"prepared": "prepared", "engine": "engines"}

_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: How publishers name what they write; everything else below tmp/ is somebody else's.
_OURS = re.compile(r"[0-9a-f]{32}")

#: Whether the directory that is there may stay, where one with this manifest is to be published.
Suffices = Callable[[Path, ArtefactManifest], bool]


class Store:
    """Publishes and removes artefacts below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"

    def path_of(self, kind: str, digest: str) -> Path:
        """Where an artefact of this kind (`prepared`, `engine`) lies once it is published."""
        return self.root / KINDS[kind] / digest

    def is_intact(self, kind: str, digest: str) -> bool:
        """Whether the artefact is published and every byte of it is right."""
        return _verified(self.path_of(kind, digest), digest) is not None

    def keep(self, kind: str, digest: str) -> ArtefactManifest | None:
        """Make an artefact that is intact young, and tell of it; None when there is none."""
        path = self.path_of(kind, digest)
        found = _verified(path, digest)
        return found if found is not None and _refresh(path) else None

    def publish(
        self,
        source: Path,
        names: list[str],
        manifest: ArtefactManifest,
        attached: Mapping[str, bytes],
    ) -> bool:
        """Publish the named files of `source`; False when they were there already, intact.

        Another engine of the same digest gives way. A prepared model, which builds may be reading
        and no cluster takes from elsewhere, is kept whatever its bytes are. `manifest` lists the
        files' hashes; they are checked again on the copies. `attached` is what lies beside it and
        is about it. Raises OSError when the store cannot be written and IntegrityError when
        `source` changes meanwhile.
        """
        target = self.path_of(manifest.identity.kind, manifest.digest)
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._sweep()
        if _is_same(target, manifest) and _refresh(target):
            return False
        staging = self._tmp / uuid.uuid4().hex
        try:
            self._stage(source, staging, names, attached)
            write_manifest(staging, manifest)
            return self._seal(staging, manifest, _is_same)
        finally:
            _remove_tree(staging)

    def adopt(self, staging: Path, manifest: ArtefactManifest, *, instead: bool = False) -> bool:
        """Publish a complete directory below tmp/, as a download makes it; see `publish`.

        It is moved, or left where an intact artefact was there already, unless it is to be there
        `instead`.
        """
        if instead:
            return self._seal(staging, manifest, _never)
        target = self.path_of(manifest.identity.kind, manifest.digest)
        if _is_intact(target, manifest) and _refresh(target):
            return False
        return self._seal(staging, manifest, _is_intact)

    def remove(self, digest: str) -> int:
        """Delete the artefacts with this digest; bytes freed, 0 when there were none."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._sweep()
        freed = 0
        for kind in KINDS:
            discarded = self._discard(self.path_of(kind, digest))
            if discarded is not None:
                freed += _tree_size(discarded)
                _remove_tree(discarded)
        return freed

    def tidy(self, retention: Retention) -> int:
        """Delete artefacts, intact or damaged, that need not be kept; bytes freed.

        What is kept is made young, so that the time that the others have counts from when they
        were needed last. Best effort: what can't be deleted now is the next one's.
        """
        freed = 0
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._sweep()
        found = list(self._artefacts())
        if retention.keep_seconds:
            for entry in found:
                if entry.path.name in retention.keep:
                    _refresh(entry.path)
        expired, spare = retention.divide(found)
        for entry in expired:
            freed += self._remove_quietly(entry.path, retention.limit)
        for entry in spare:
            if _share_used(self.root) < retention.high_water:
                break
            freed += self._remove_quietly(entry.path, retention.limit)
        return freed

    def _artefacts(self) -> Iterator[Artefact]:
        for folder in KINDS.values():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for path in sorted((self.root / folder).iterdir()):
                    if _DIGEST.fullmatch(path.name):
                        yield Artefact(path, _made_at(path))

    def _remove_quietly(self, path: Path, limit: float) -> int:
        with contextlib.suppress(OSError):
            return self._remove_old(path, limit)
        return 0

    def _remove_old(self, path: Path, limit: float) -> int:
        discarded = self._discard(path)
        if discarded is None:
            return 0
        # From here on nobody can refresh it; but somebody may have, since its age was looked at.
        if _made_at(discarded) >= limit:
            with contextlib.suppress(OSError):  # Somebody published it anew; this copy may go.
                discarded.rename(path)
            _remove_tree(discarded)
            return 0
        freed = _tree_size(discarded)
        _remove_tree(discarded)
        return freed

    def _stage(
        self, source: Path, staging: Path, names: list[str], attached: Mapping[str, bytes]
    ) -> None:
        for name in names:
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with (source / name).open("rb") as reader, target.open("xb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK)
        for name, data in attached.items():
            (staging / name).write_bytes(data)

    def _seal(self, staging: Path, manifest: ArtefactManifest, suffices: Suffices) -> bool:
        """Everything is on disk before the directory gets its name; the manifest comes last."""
        folders = [Path(folder) for folder, _folders, _files in os.walk(staging)]
        for folder in folders:
            for entry in folder.iterdir():
                if entry.is_file() and entry != staging / MANIFEST:
                    _sync_path(entry)
        _sync_path(staging / MANIFEST)
        for folder in folders:
            _sync_path(folder)
        verify_artefact(staging, manifest.digest)
        return self._install(staging, manifest, suffices)

    def _install(self, staging: Path, manifest: ArtefactManifest, suffices: Suffices) -> bool:
        """One rename. Whoever comes second keeps an artefact that `suffices`, and replaces others.

        Of two who replace each other's the last one stays; each of them is done with one rename.
        """
        target = self.path_of(manifest.identity.kind, manifest.digest)
        target.parent.mkdir(exist_ok=True)
        while True:
            try:
                staging.rename(target)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                if not suffices(target, manifest):
                    self._set_aside(target, manifest, suffices)
                elif _refresh(target):
                    return False
            else:
                _sync_path(target.parent)
                return True

    def _set_aside(self, target: Path, manifest: ArtefactManifest, suffices: Suffices) -> None:
        """Move what is there below tmp/, unless one that suffices took its place meanwhile."""
        discarded = self._discard(target)
        if discarded is None:
            return
        if suffices(discarded, manifest):
            with contextlib.suppress(OSError):  # A third publisher was faster; this copy may go.
                discarded.rename(target)
        _remove_tree(discarded)

    def _discard(self, path: Path) -> Path | None:
        discarded = self._tmp / uuid.uuid4().hex
        try:
            path.rename(discarded)
        except FileNotFoundError:
            return None
        return discarded

    def _sweep(self) -> None:
        """Remove what killed publishers left; anything that changed lately is somebody's work."""
        # By the clock that dates the others' files, which a node's own may be far ahead of.
        os.utime(self._tmp)
        limit = self._tmp.stat().st_mtime - ABANDONED_AFTER
        for entry in self._tmp.iterdir():
            if _OURS.fullmatch(entry.name) and _last_change(entry) < limit:
                _remove_tree(entry)


def _verified(path: Path, digest: str) -> ArtefactManifest | None:
    """The manifest of an intact artefact of this digest."""
    try:
        return verify_artefact(path, digest)
    except IntegrityError:
        return None


def _is_intact(there: Path, manifest: ArtefactManifest) -> bool:
    return _verified(there, manifest.digest) is not None


def _is_same(there: Path, manifest: ArtefactManifest) -> bool:
    """Of an engine all that the manifest says, since parity and origin are believed and signed."""
    found = _verified(there, manifest.digest)
    if found is None:
        return False
    if manifest.identity.kind == "prepared":
        return True
    return found == manifest.model_copy(update={"created_at": found.created_at})


def _never(_there: Path, _manifest: ArtefactManifest) -> bool:
    return False


def _refresh(artefact: Path) -> bool:
    """Make an intact artefact young; False when it was taken away meanwhile."""
    manifest = artefact / MANIFEST
    # Where it can't be touched it can't be deleted either: a read-only store.
    with contextlib.suppress(OSError):
        os.utime(manifest)
    # Looked for after it was touched: who takes it away from now on sees how young it is.
    return manifest.is_file()


def _made_at(artefact: Path) -> float:
    """Of its manifest, or of the directory without one; an artefact that is gone is not old."""
    for path in (artefact / MANIFEST, artefact):
        with contextlib.suppress(OSError):
            return path.lstat().st_mtime
    return math.inf


def _share_used(root: Path) -> float:
    """Of the filesystem's room that users may have; 1 is full."""
    usage = shutil.disk_usage(root)
    return 1 - usage.free / max(1, usage.used + usage.free)


def _last_change(path: Path) -> float:
    """Newest change below `path`; one that its owner has just moved is not old."""
    times = []
    for folder, _folders, files in os.walk(path):
        for name in ("", *files):
            with contextlib.suppress(FileNotFoundError):
                times.append(Path(folder, name).lstat().st_mtime)
    return max(times, default=math.inf)


def _tree_size(root: Path) -> int:
    return sum(entry.lstat().st_size for entry in root.rglob("*") if entry.is_file())


def _remove_tree(path: Path) -> None:
    """Best effort: what stays is swept by a later publish."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """fsync; some network filesystems cannot sync a directory and say EINVAL."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
