"""Running short commands, with errors that say which command failed and why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from localcluster.errors import ClusterError, PrerequisiteError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment() -> dict[str, str]:
    """The environment of the cluster's programs: no proxies, nothing of the user's shell."""
    kept = {key: os.environ[key] for key in ("HOME", "LANG", "TZ") if key in os.environ}
    return {**kept, "PATH": SYSTEM_PATH}


def capture(argv: Sequence[str], *, stdin: str | None = None, timeout_seconds: float = 60) -> str:
    """Run a command and return its standard output; raise ClusterError when it fails."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env=environment(),
            check=False,
        )
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{_shown(argv)}: no answer in {timeout_seconds:.0f} s") from error
    if done.returncode != 0:
        reason = done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}"
        raise ClusterError(f"{_shown(argv)}: {reason[-800:]}")
    return done.stdout


def succeeds(argv: Sequence[str], *, timeout_seconds: float = 60) -> bool:
    """Tell whether a command ends well; its output is not of interest."""
    try:
        capture(argv, timeout_seconds=timeout_seconds)
    except ClusterError:
        return False
    return True


def _shown(argv: Sequence[str]) -> str:
    text = " ".join(argv)
    return text if len(text) <= 160 else text[:157] + "..."
