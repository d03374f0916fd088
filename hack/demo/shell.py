"""Running other programs, and saying how long each step took."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".cluster"
CLUSTER = ROOT / "hack/local-cluster/cluster"


class DemoError(Exception):
    """Something that the user should read; no traceback."""


def environment() -> dict[str, str]:
    """The caller's environment with the cluster's kubeconfig and tools."""
    path = f"{STATE / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "KUBECONFIG": str(STATE / "kubeconfig")}


def run(*command: str | Path) -> None:
    """Run with the output shown. Raises DemoError."""
    words = [str(word) for word in command]
    if subprocess.run(words, env=environment(), check=False, cwd=ROOT).returncode != 0:
        raise DemoError(f"`{' '.join(words)}` failed; its output is above")


def output(*command: str) -> str:
    """Run and return what it prints. Raises DemoError with its complaint."""
    done = subprocess.run(
        command, env=environment(), check=False, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise DemoError(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout


def answers(*command: str) -> bool:
    """Whether a command succeeds."""
    done = subprocess.run(command, env=environment(), check=False, cwd=ROOT, capture_output=True)
    return done.returncode == 0


def image_id(reference: str) -> str:
    """Leading digits of the id of an image that was built here."""
    formats = {"docker": "{{.Id}}", "buildah": "{{.FromImageID}}"}
    for tool, form in formats.items():
        if shutil.which(tool) is None:
            continue
        inspect = ("inspect", "--type", "image", "--format", form, reference)
        done = subprocess.run((tool, *inspect), check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip().removeprefix("sha256:")[:12]
    raise DemoError(f"image {reference} is not there; build it with `make images`")


def say(text: str = "") -> None:
    """One line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Headline before, duration after."""
    say(f"\n== {title}")
    started = time.monotonic()
    yield
    say(f"   done in {time.monotonic() - started:.0f} s")
