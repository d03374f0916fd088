"""buildah's image store, where the project's images are built."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from localcluster.errors import ClusterError, PrerequisiteError


def image_id(name: str) -> str:
    """Return the id (the digest of its configuration) of an image in the store."""
    output = _buildah(
        "inspect", "--type=image", "--format={{.FromImageID}}", name, missing=name
    ).strip()
    return f"sha256:{output.removeprefix('sha256:')}"


def push_layout(name: str, directory: Path) -> None:
    """Copy an image into an OCI layout; blobs that are there already are not copied again."""
    # Compressing gigabytes for a copy on the same machine is all cost.
    _buildah("push", "--quiet", "--disable-compression", name, f"oci:{directory}:local")


def _buildah(*arguments: str, missing: str = "") -> str:
    if shutil.which("buildah") is None:
        raise PrerequisiteError("buildah is not installed: apt-get install buildah")
    done = subprocess.run(
        ["buildah", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    if done.returncode != 0:
        if missing:
            raise ClusterError(
                f"{missing} is neither a file nor an image in buildah's store (see: buildah images)"
            )
        raise ClusterError(f"buildah {arguments[0]}: {done.stderr.strip()[-800:]}")
    return done.stdout
