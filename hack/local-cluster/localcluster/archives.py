"""OCI image archives: writing tiny ones, and reading what an archive holds.

The cluster's own images are one static program each. Writing such an archive
takes a tar file and three JSON documents, needs no image builder, leaves
nothing in the user's image store, and gives the same digest every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from localcluster.errors import ClusterError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
_MAX_DOCUMENT_BYTES = 4 * 1024**2
_SMALL_BLOB_BYTES = 1024**2


@dataclass(frozen=True)
class ArchivedImage:
    """An image in an archive: its name, empty when it has none, and its manifest's digest."""

    name: str
    digest: str


def architecture() -> str:
    """Return this machine's architecture in OCI's terms."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def write_program_image(
    archive: Path,
    *,
    name: str,
    program: Path,
    target: str,
    entrypoint: Sequence[str],
    links: Sequence[str] = (),
) -> None:
    """Write an image that holds one program at ``target`` (absolute), and links to it."""
    layer = _program_layer(program, target.lstrip("/"), links)
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": list(entrypoint),
            "Env": ["PATH=/usr/local/bin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config_blob = _json(config)
    manifest_blob = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config_blob),
            "layers": [_descriptor(_LAYER, layer)],
        }
    )
    entry = {**_descriptor(_MANIFEST, manifest_blob), "annotations": {IMAGE_NAME: name}}
    index = _json({"schemaVersion": 2, "manifests": [entry]})
    temporary = archive.with_suffix(".partial")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(temporary, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)
        for blob in (manifest_blob, config_blob, layer):
            _add(tar, blob_path(_digest(blob)), blob)
    temporary.replace(archive)


def blob_path(digest: str) -> str:
    """Return where an OCI layout keeps the blob with this digest."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def manifest_config(manifest: bytes) -> str:
    """Return the digest of an image's configuration, which is the image's id."""
    return str(json.loads(manifest)["config"]["digest"])


def blob_sizes(manifest: bytes, digest: str) -> dict[str, int]:
    """Return the sizes in bytes of an image's configuration and layers, by digest.

    ValueError or KeyError when the manifest is not the one with this digest.
    """
    if _digest(manifest) != digest:
        raise ValueError(f"it is not what {digest} stands for")
    document = json.loads(manifest)
    parts = document.get("manifests") or [document["config"], *document["layers"]]
    return {str(part["digest"]): int(part["size"]) for part in parts}


@contextlib.contextmanager
def open_layout(source: Path) -> Iterator[ImageLayout]:
    """Open an OCI layout, a directory or a tar archive of one."""
    if source.is_dir():
        entries = {
            str(path.relative_to(source)): path for path in source.rglob("*") if path.is_file()
        }
        yield ImageLayout(
            {name: path.stat().st_size for name, path in entries.items()},
            lambda name: entries[name].open("rb"),
        )
        return
    try:
        tar = tarfile.open(source)  # noqa: SIM115 - closed below, with errors of its own
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = str(error).partition(":")[0]
        raise ClusterError(f"{source} is not an image archive: {reason}") from error
    with tar:
        try:
            members = {m.name.removeprefix("./"): m for m in tar.getmembers() if m.isfile()}
        except (OSError, EOFError, tarfile.TarError) as error:
            raise ClusterError(f"{source} is not a whole archive: {error}") from error

        def open_member(name: str) -> IO[bytes]:
            return cast(IO[bytes], tar.extractfile(members[name]))  # only files are listed

        yield ImageLayout({name: m.size for name, m in members.items()}, open_member)


@dataclass(frozen=True)
class ImageLayout:
    """An OCI layout that is open for reading: sizes in bytes by path, and how to open one."""

    sizes: dict[str, int]
    open: Callable[[str], IO[bytes]]

    @property
    def is_oci(self) -> bool:
        """False for the older format of ``docker save``."""
        return "index.json" in self.sizes and "oci-layout" in self.sizes

    def images(self) -> list[ArchivedImage]:
        """Return the images in the layout's index."""
        found = []
        for entry in self._index().get("manifests", []):
            annotations = entry.get("annotations") or {}
            name = annotations.get(IMAGE_NAME) or annotations.get(REF_NAME) or ""
            found.append(ArchivedImage(str(name), str(entry["digest"])))
        return found

    def copy(self, target: IO[bytes], names: dict[str, str], present: Container[str]) -> int:
        """Write the layout as a tar stream; return the bytes of the blobs in it.

        ``names`` gives every manifest digest the image name it shall have.
        Large blobs whose hex digest is ``present`` at the receiver are left
        out; manifests and configurations always travel, the receiver reads them.
        """
        index = self._index()
        for entry in index["manifests"]:
            entry["annotations"] = {IMAGE_NAME: names[entry["digest"]]}
        copied = 0
        with tarfile.open(fileobj=target, mode="w|") as tar:
            with self.open("oci-layout") as stream:
                _add(tar, "oci-layout", stream.read())
            _add(tar, "index.json", _json(index))
            for path in sorted(self.sizes):
                size = self.sizes[path]
                wanted = size < _SMALL_BLOB_BYTES or Path(path).name not in present
                if path.startswith("blobs/") and wanted:
                    entry = tarfile.TarInfo(path)
                    entry.size = size
                    with self.open(path) as stream:
                        tar.addfile(entry, stream)
                    copied += size
        return copied

    def _index(self) -> dict[str, Any]:
        return self._json("index.json")

    def _json(self, path: str) -> dict[str, Any]:
        if self.sizes.get(path, _MAX_DOCUMENT_BYTES + 1) > _MAX_DOCUMENT_BYTES:
            raise ClusterError(f"not an OCI image layout: {path} is missing or too large")
        with self.open(path) as stream:
            value = json.load(stream)
        if not isinstance(value, dict):
            raise ClusterError(f"not an OCI image layout: {path} holds no object")
        return value


def _program_layer(program: Path, target: str, links: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        # /tmp as in any image: programs expect to write there where the root is writable.
        for directory in sorted({*map(str, Path(target).parents), "tmp"} - {"."}):
            entry = tarfile.TarInfo(directory)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, target, program.read_bytes(), mode=0o755)
        for link in links:
            entry = tarfile.TarInfo(str(Path(target).parent / link))
            entry.type = tarfile.SYMTYPE
            entry.linkname = Path(target).name
            tar.addfile(entry)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)  # time 0, owner root: the same bytes whenever it is made
    entry.size = len(data)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(data))


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
