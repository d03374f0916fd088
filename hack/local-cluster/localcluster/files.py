"""Writing files so that a killed process or a full disk leaves no half of one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from localcluster.errors import ClusterError


def write(path: Path, content: str | bytes, *, mode: int = 0o644) -> bool:
    """Write ``content`` atomically, only if it differs; return whether it did."""
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.read_bytes() == data and path.stat().st_mode & 0o777 == mode:
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty when it is absent or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any], *, mode: int = 0o644) -> bool:
    """Write an object as JSON, like :func:`write`."""
    return write(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode=mode)


def remove(path: Path) -> None:
    """Remove a file or a whole directory; one that is absent is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            raise ClusterError(f"{path} cannot be removed; remove it by hand and try again")
    else:
        path.unlink(missing_ok=True)
