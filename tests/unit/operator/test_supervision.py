"""The shell around Triton, run as in the container, but not as its first process."""

import signal
import subprocess

import pytest

from reranker_operator.render.supervision import supervised


def start(script: str, *, started_seconds: int = 10) -> subprocess.Popen[str]:
    """A server that counts as started after so many seconds."""
    command = supervised(["bash", "-c", script])
    assert "lived >= 10 " in command[2]
    command[2] = command[2].replace("lived >= 10 ", f"lived >= {started_seconds} ")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("status", [0, 1, 137])
def test_a_server_that_does_not_come_up_ends_the_container(status: int) -> None:
    with start(f"echo why >&2; exit {status}") as server:
        _, said = server.communicate(timeout=30)
    assert server.returncode == status
    assert said == "why\n", "the end of the log is the server's own"


def test_a_crash_is_mended_once() -> None:
    with start("echo up; exit 3", started_seconds=0) as server:
        out, said = server.communicate(timeout=30)
    assert server.returncode == 3
    assert out == "up\nup\n"
    assert "bash ended with status 3 after 0 s; it is started again" in said


def test_the_end_waits_for_the_server() -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with start(script, started_seconds=0) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=30)
    assert (out, server.returncode) == ("bye\n", 5)


def test_kubernetes_finds_no_variable_in_it() -> None:
    assert not any("$(" in text or "$$" in text for text in supervised(["tritonserver"]))
