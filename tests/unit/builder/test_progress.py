"""Progress lines: a step that takes long says so."""

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine_builder import progress

from .artefacts import published_engine


def test_a_silent_step_says_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "ALIVE_SECONDS", 0.01)
    said, say = threading.Event(), progress.Progress.say

    def listen(self: progress.Progress, text: str) -> None:
        say(self, text)
        if "so far" in text:
            said.set()

    monkeypatch.setattr(progress.Progress, "say", listen)
    with progress.Progress("export").step("a long call"):
        assert said.wait(60)
    lines = capsys.readouterr().out.splitlines()
    assert "export: a long call ..." in lines[0]
    assert "a long call: 0 s so far" in lines[1]
    assert "a long call: done in" in lines[-1]


def _at_terminal(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, and what a terminal at standard error is shown."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "engine_builder", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    ) as program:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:
            """The terminal's other end is closed."""
        finally:
            os.close(ours)
        output, _none = program.communicate(timeout=60)
    return program.returncode, output, shown.decode()


def test_a_terminal_is_shown_what_moves_and_the_answer_stays_clean(tmp_path: Path) -> None:
    engine = published_engine(tmp_path)
    code, output, shown = _at_terminal("inspect", str(engine))
    assert code == 0
    assert output.startswith("engine ")
    assert "\x1b[" not in output
    assert "checking every file: done in" in shown
    assert "\x1b[" in shown, "no line that moves was drawn"
    (engine / "model.json").write_text("{}")
    code, _output, shown = _at_terminal("inspect", str(engine))
    assert (code, "ChecksumMismatch" in shown) == (8, True)
