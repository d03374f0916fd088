"""Progress lines: a step that takes long says so."""

import threading

import pytest

from engine_builder import progress


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
