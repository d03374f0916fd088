"""The shell around Triton, run as in the container, but not as its first process."""

import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support.kubectl import eventually

from reranker_operator.render.supervision import supervised


def start(
    script: str, *, started_seconds: int = 10, port: int = 1, doomed: str = "/dev/null"
) -> subprocess.Popen[str]:
    """A server that counts as started after so many seconds."""
    command = supervised(["bash", "-c", script], port=port, doomed=doomed)
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
    assert re.search("bash ended with status 3 after [0-9]+ s; it is started again", said)


def test_the_end_waits_for_the_server() -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with start(script, started_seconds=0) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=30)
    assert (out, server.returncode) == ("bye\n", 5)


def listen(address: str) -> socket.socket:
    """On a free port; one of IPv4 that is written as one of IPv6 as gRPC does it."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((address, 0))
    listener.listen()
    return listener


@pytest.mark.parametrize("written_as", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_a_server_whose_client_is_still_there_serves_on(tmp_path: Path, written_as: str) -> None:
    """As in a pod that is deleted by force; the file tells the client."""
    doomed = tmp_path / "doomed"
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with listen(written_as) as listener:
        address = listener.getsockname()[:2]
        with (
            start(script, port=address[1], doomed=str(doomed)) as server,
            socket.create_connection(address) as client,
        ):
            other, _ = listener.accept()
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            assert not doomed.exists()
            server.send_signal(signal.SIGTERM)
            eventually(doomed.exists, within=30, every=0.05)
            assert server.poll() is None
            client.close()
            other.close()
            out, _ = server.communicate(timeout=30)
    assert (out, server.returncode) == ("bye\n", 5)


def test_kubernetes_finds_no_variable_in_it() -> None:
    assert not any("$(" in text or "$$" in text for text in supervised(["t"], port=1, doomed="d"))
