"""The image store of buildah and Podman on this machine, read through skopeo."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from localcluster import archives
from localcluster.errors import ClusterError, PrerequisiteError


def image_id(name: str) -> str:
    """Return the id (the digest of its configuration) of an image in the store."""
    done = _skopeo("inspect", "--raw", f"containers-storage:{name}")
    if done.returncode != 0:
        raise ClusterError(
            f"{name} is neither a file nor an image in buildah's store (see: buildah images)"
        )
    return archives.manifest_config(done.stdout)


def copy_to_layout(name: str, directory: Path) -> None:
    """Copy an image into an OCI layout; blobs that are there already are not written again."""
    # Compressing gigabytes for a copy on the same machine is all cost. buildah
    # itself (1.28) cannot be told not to.
    options = ["--quiet", "--dest-oci-accept-uncompressed-layers"]
    done = _skopeo("copy", *options, f"containers-storage:{name}", f"oci:{directory}:local")
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()[-800:]
        raise ClusterError(f"{name} cannot be read from buildah's store: {reason}")


def _skopeo(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("skopeo") is None:
        raise PrerequisiteError("skopeo is not installed: apt-get install skopeo")
    # The user's environment says where the store is.
    return subprocess.run(
        ["skopeo", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ,
        check=False,
    )
