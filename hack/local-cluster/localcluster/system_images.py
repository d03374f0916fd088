"""The images that a cluster needs of its own, each made of one static program."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import archives, binaries, commands, files
from localcluster.console import Console
from localcluster.errors import PrerequisiteError

_PREFIX = "localhost/local-cluster"
PAUSE = f"{_PREFIX}/pause:{binaries.PAUSE.version}"
BUSYBOX = f"{_PREFIX}/busybox:stable"
COREDNS = f"{_PREFIX}/coredns:{binaries.COREDNS.version}"
LOCAL_PATH_PROVISIONER = (
    f"{_PREFIX}/local-path-provisioner:{binaries.LOCAL_PATH_PROVISIONER.version}"
)


@dataclass(frozen=True)
class SystemImage:
    """An image and the program in it."""

    name: str
    program: str
    target: str
    entrypoint: tuple[str, ...]

    def archive(self, directory: Path) -> Path:
        """Return where the image's archive is kept."""
        return directory / f"{self.program}.tar"


IMAGES = (
    SystemImage(PAUSE, "pause", "/pause", ("/pause",)),
    SystemImage(BUSYBOX, "busybox", "/bin/busybox", ("/bin/sh",)),
    SystemImage(COREDNS, "coredns", "/coredns", ("/coredns",)),
    SystemImage(
        LOCAL_PATH_PROVISIONER,
        "local-path-provisioner",
        "/usr/local/bin/local-path-provisioner",
        ("local-path-provisioner",),
    ),
)


def ensure_busybox(directory: Path, console: Console) -> None:
    """Put Debian's static busybox into ``directory``; installs nothing on the machine.

    The package cannot be installed beside Debian's ordinary busybox, so it is
    only unpacked.
    """
    if (directory / "busybox").is_file():
        return
    console.say("fetching busybox-static from Debian")
    with tempfile.TemporaryDirectory(dir=directory, prefix=".busybox-") as making:
        # apt fetches as a user of its own, which must be able to write here.
        Path(making).chmod(0o755)
        download = ["sh", "-c", 'cd "$1" && apt-get download -q busybox-static', "sh", making]
        if not commands.succeeds(download, timeout_seconds=300):
            commands.capture(["apt-get", "update", "-q"], timeout_seconds=300)
            commands.capture(download, timeout_seconds=300)
        packages = list(Path(making).glob("busybox-static_*.deb"))
        if not packages:
            raise PrerequisiteError("package busybox-static is not in Debian's package index")
        commands.capture(["dpkg-deb", "--extract", str(packages[0]), f"{making}/root"])
        found = [Path(making, "root", path) for path in ("bin/busybox", "usr/bin/busybox")]
        shutil.copy(next(path for path in found if path.is_file()), f"{making}/busybox")
        Path(making, "busybox").replace(directory / "busybox")


def ensure_archives(programs: Path, directory: Path, console: Console) -> None:
    """Write the archives of all images whose program changed."""
    for image in IMAGES:
        program = programs / image.program
        status = program.stat()
        source = {"name": image.name, "bytes": status.st_size, "changed": status.st_mtime_ns}
        stamp = directory / f"{image.program}.json"
        if files.read_json(stamp) == source and image.archive(directory).is_file():
            continue
        console.say(f"writing image {image.name}")
        archives.write_program_image(
            image.archive(directory),
            name=image.name,
            program=program,
            target=image.target,
            entrypoint=image.entrypoint,
            links=_applets(program) if image.name == BUSYBOX else (),
        )
        files.write_json(stamp, dict(source))


def _applets(busybox: Path) -> Sequence[str]:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name != "busybox"]
