"""The operator as a process."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.operator_process import start_operator, write_kubeconfig


def _run(tmp_path: Path, server: str, **settings: str) -> "subprocess.Popen[str]":
    return start_operator(
        write_kubeconfig(tmp_path / "kubeconfig", server),
        settings | {"http_port": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(120)
def test_an_ordinary_stop_is_no_failure(tmp_path: Path) -> None:
    with _run(tmp_path, "http://127.0.0.1:9", leader_election="false") as process:
        assert process.stdout
        # kopf is at work: it has its own way with signals.
        assert any('"kopf' in line for line in process.stdout), "kopf has said nothing"
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait() == 0, rest
        assert "Traceback" not in rest


@pytest.mark.timeout(120)
@pytest.mark.parametrize("election", ["true", "false"])
def test_an_api_server_that_hangs_does_not_hold_the_stop_up(tmp_path: Path, election: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with _run(tmp_path, address, leader_election=election) as process:
            caller, _ = silent.accept()
            # The operator waits for an answer now.
            with caller:
                began = time.monotonic()
                process.send_signal(signal.SIGTERM)
                rest = process.stdout.read() if process.stdout else ""
                assert process.wait() == 0, rest
                assert time.monotonic() - began < 10


def test_a_package_that_is_missing_is_named() -> None:
    """The command is installed with any of the extras."""
    block = "import sys; sys.modules['kopf'] = None"
    program = f"{block}; import reranker_operator.__main__ as entry; entry.main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "reranker-operator: the package kopf is missing; install reranker-operator[operator]\n"
    )
