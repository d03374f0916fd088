"""A build that is killed again and again: never a half-published engine, and it goes on."""

import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from reranker_contracts import verify_artefact

pytestmark = pytest.mark.builder

_KILLS = 50
#: What of the file system is used by one whole build, at least.
_FEWEST_STEPS = 40

# Imports once, then forks for each line `STEP SOURCE STORE` on its standard input. The child builds
# and is killed right before its STEP-th change below STORE or its work folder, or at the end of a
# stage for a negative STEP; without one (0) it comes to its end. Says how the child ended.
BUILDER = """
    import os, signal, sys, tempfile
    from engine_builder import record
    from engine_builder.cli import main
    import engine_builder.stages.export, engine_builder.stages.validate

    def child(step, source, store, log):
        seen, stages = 0, 0
        work = tempfile.gettempdir()

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def hook(event, arguments):
            nonlocal seen, stages
            if event == "open":
                path, mode = arguments[0], arguments[1]
                if not isinstance(mode, str) or not set(mode) & set("wxa+"):
                    return
            elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
                path = arguments[0]
            else:
                return
            if not str(path).startswith((store, work)):
                return
            seen += 1
            if seen == step:
                die()
            # A stage's record is written when all of its output is there.
            if event == "os.rename" and str(path).endswith(".engine-builder-output.partial"):
                stages += 1
                if stages == -step:
                    die()

        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.addaudithook(hook)
        target = ["--runtime", "onnxruntime", "--precision", "fp32"]
        code = main(["build", "--source", source, "--out", store, *target])
        os.write(1, f"steps {seen}\\n".encode())
        os._exit(code)

    for line in sys.stdin:
        step, source, store, log = line.rstrip("\\n").split("\\t")
        if (pid := os.fork()) == 0:
            child(int(step), source, store, log)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def _whole(store: Path) -> list[str]:
    """Digests that are published, each checked byte by byte."""
    found = [*store.glob("prepared/*"), *store.glob("engines/*")]
    for path in found:
        verify_artefact(path, path.name)
    return [path.name for path in found]


@pytest.mark.timeout(600)
def test_killed_at_stage_boundaries_and_at_random_points(
    make_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    model, log, chance = make_model("bert"), tmp_path / "log", random.Random(11)  # noqa: S311
    program = [sys.executable, "-c", textwrap.dedent(BUILDER)]
    kills, builds, steps = 0, 0, 1000
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True) as builder:
        assert builder.stdin is not None
        assert builder.stdout is not None

        def build(step: int, store: Path) -> int:
            print(step, model, store, log, sep="\t", file=builder.stdin, flush=True)
            return int(builder.stdout.readline())  # type: ignore[union-attr]

        # How much there is to do, and what comes of it undisturbed.
        assert build(0, tmp_path / "undisturbed") == 0, log.read_text()
        expected = _whole(tmp_path / "undisturbed")
        steps = int(log.read_text().split()[-1])
        assert steps > _FEWEST_STEPS
        while kills < _KILLS:
            store = tmp_path / f"store-{builds}"
            builds += 1
            # Before each of its four stages counts as done, then wherever chance will have it.
            for step in (-1, -2, -2, -2, *(chance.randint(1, steps) for _ in range(8))):
                log.unlink(missing_ok=True)
                code = build(step, store)
                _whole(store)
                if code == 0:
                    break
                assert code == -signal.SIGKILL, log.read_text()
                kills += 1
            log.unlink(missing_ok=True)
            assert build(0, store) == 0, log.read_text()
            assert sorted(_whole(store)) == sorted(expected)
        builder.stdin.close()
    assert kills >= _KILLS


@pytest.mark.timeout(300)
def test_what_was_finished_is_not_done_again(
    make_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    model, store, log = make_model("bert"), tmp_path / "store", tmp_path / "log"
    program = [sys.executable, "-c", textwrap.dedent(BUILDER)]
    pipe = subprocess.PIPE
    told = []
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True) as builder:
        assert builder.stdin is not None
        assert builder.stdout is not None
        # Each is killed as the second of its stages ends: the first was left by the one before.
        for step in (-2, -2, -2, 0):
            log.unlink(missing_ok=True)
            print(step, model, store, log, sep="\t", file=builder.stdin, flush=True)
            code = int(builder.stdout.readline())
            assert code == (0 if step == 0 else -signal.SIGKILL), log.read_text()
            words = log.read_text()
            told.append(
                {
                    name
                    for name in ("fetch", "export", "compile")
                    if f"{name}: done by an earlier build" in words
                }
                | ({"prepared"} if (store / "prepared").is_dir() else set())
            )
        builder.stdin.close()
    assert told == [set(), {"fetch", "prepared"}, {"prepared"}, {"compile", "prepared"}]
