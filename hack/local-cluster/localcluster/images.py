"""Images in the node's own containerd: what is there, and how more get in.

There is no registry. Images come from archives or from buildah's store, and
only blobs that the node lacks travel. For an image of the store, the node's
blobs are hard-linked into the layout beforehand, so that those are not even
written: a new build of a large image is loaded in seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from localcluster import archives, commands, storage
from localcluster.console import Console
from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.namespaces import Node

_CTR = ("ctr", "--namespace=k8s.io")
_BLOBS = Path("containerd/io.containerd.content.v1.content/blobs/sha256")
_FULL_NAME = re.compile(r"[^/:]+(:\d+)?(/[^/:]+)+:[^/:]+")


class ImageStoreError(ClusterError):
    """The node's containerd cannot list its images or take one in."""


@dataclass(frozen=True)
class ImageStore:
    """The images of one node."""

    layout: Layout
    node: Node
    snapshotter: str

    def check(self) -> None:
        """Raise ImageStoreError when an image is not whole, as after a power loss.

        Manifests are compared with their digests, what they list with its size.
        """
        for name, digest in self._digests().items():
            try:
                sizes = archives.blob_sizes(self._blob(digest).read_bytes(), digest)
            except (OSError, ValueError, KeyError) as error:
                raise ImageStoreError(f"the manifest of {name} is damaged: {error}") from error
            for blob, size in sizes.items():
                path = self._blob(blob)
                # An absent layer is fine: its unpacked copy is what counts.
                if path.exists() and path.stat().st_size != size:
                    raise ImageStoreError(f"part {blob} of {name} is damaged")

    def load(self, source: str, console: Console) -> None:
        """Load an archive file, or an image of buildah's store by its name."""
        path = Path(source)
        if path.is_file():
            self.load_archive(path, console)
        else:
            self._load_from_buildah(source, console)

    def load_archive(self, archive: Path, console: Console) -> None:
        """Load the images of an archive under the names that it gives them."""
        began = console.elapsed
        present = self._digests()
        with archives.open_layout(archive) as opened:
            if not opened.is_oci:
                self._load_docker_archive(archive, present, console)
                return
            names = {image.digest: _checked_name(image, archive) for image in opened.images()}
            if not names:
                raise ClusterError(f"{archive} holds no image")
            shown = ", ".join(sorted(names.values()))
            if all(present.get(name) == digest for digest, name in names.items()):
                console.say(f"{shown}: there already")
                return
            copied = self._import_layout(opened, names)
        self._forget_replaced()
        console.say(f"loaded {shown} ({_mib(copied)}, {console.elapsed - began:.1f} s)")

    def _load_from_buildah(self, name: str, console: Console) -> None:
        began = console.elapsed
        image_id = storage.image_id(name)
        present = self._digests().get(name)
        if present is not None and self._config_digest(present) == image_id:
            console.say(f"{name}: there already")
            return
        self.layout.tmp.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.layout.tmp, prefix="image-") as directory:
            seeded = Path(directory, "blobs", "sha256")
            seeded.mkdir(parents=True)
            for digest in self._present_blobs():
                with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                    os.link(self._blob(digest), seeded / digest)
            storage.copy_to_layout(name, Path(directory))
            with archives.open_layout(Path(directory)) as opened:
                names = {image.digest: name for image in opened.images()}
                copied = self._import_layout(opened, names)
        self._forget_replaced()
        console.say(f"loaded {name} ({_mib(copied)}, {console.elapsed - began:.1f} s)")

    def _load_docker_archive(self, archive: Path, before: dict[str, str], console: Console) -> None:
        began = console.elapsed

        def feed(target: IO[bytes]) -> int:
            with archive.open("rb") as stream:
                while chunk := stream.read(1024**2):
                    target.write(chunk)
            return archive.stat().st_size

        copied = self._import(feed)
        after = self._digests()
        changed = sorted(
            name
            for name, digest in after.items()
            if not _is_id(name) and before.get(name) != digest
        )
        console.say(
            f"loaded {', '.join(changed) or 'nothing new'} "
            f"({_mib(copied)}, {console.elapsed - began:.1f} s)"
        )

    def _import_layout(self, opened: archives.ImageLayout, names: dict[str, str]) -> int:
        present = self._present_blobs()
        return self._import(lambda target: opened.copy(target, names, present))

    def _import(self, feed: Callable[[IO[bytes]], int]) -> int:
        """Run the import and give it what ``feed`` writes; return the bytes that travelled."""
        arguments = ["images", "import", f"--snapshotter={self.snapshotter}", "-"]
        copied = 0
        with subprocess.Popen(
            [*self.node.enter, *_CTR, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=commands.environment(),
        ) as process:
            target, answer = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
            # When the importer gives up half way, its message is what counts.
            with contextlib.suppress(BrokenPipeError):
                copied = feed(target)
                target.close()
            message = answer.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise ImageStoreError(f"the image cannot be imported: {message[-800:]}")
        return copied

    def _forget_replaced(self) -> None:
        """Drop images that no name leads to any more: nothing else collects them.

        The runtime also knows every image by its id alone, which would keep each
        of a developer's builds on disk. Containers that run from one are not affected.
        """
        digests = self._digests()
        named = {digest for name, digest in digests.items() if not _is_id(name)}
        stale = [name for name, digest in digests.items() if _is_id(name) and digest not in named]
        if stale:
            self.node.capture(*_CTR, "images", "remove", *stale)

    def _digests(self) -> dict[str, str]:
        """Return the manifest digest of every image, by name."""
        try:
            rows = self.node.capture(*_CTR, "images", "list").splitlines()[1:]
        except ClusterError as error:
            raise ImageStoreError(f"containerd cannot list its images: {error}") from error
        columns = (row.split() for row in rows)
        return {column[0]: column[2] for column in columns if len(column) > 2}

    def _present_blobs(self) -> set[str]:
        directory = self.layout.data / _BLOBS
        return {path.name for path in directory.iterdir()} if directory.is_dir() else set()

    def _blob(self, digest: str) -> Path:
        return self.layout.data / _BLOBS / digest.removeprefix("sha256:")

    def _config_digest(self, manifest: str) -> str:
        """Return the id of an image that the node has; empty when it cannot be read."""
        try:
            return archives.manifest_config(self._blob(manifest).read_bytes())
        except (OSError, ValueError, KeyError):
            return ""


def _is_id(name: str) -> bool:
    return name.startswith("sha256:")


def _checked_name(image: archives.ArchivedImage, archive: Path) -> str:
    if _FULL_NAME.fullmatch(image.name) is None:
        raise ClusterError(
            f"{archive} names its image {image.name!r}; it takes a whole name with a registry "
            "and a tag: buildah push IMAGE oci-archive:FILE:localhost/PROJECT/IMAGE:TAG"
        )
    return image.name


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB new"
