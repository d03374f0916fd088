"""The operator as a process."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from support.fake_api import fake_api, status
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


@pytest.mark.timeout(120)
async def test_what_ends_the_watches_ends_the_process_as_a_failure(tmp_path: Path) -> None:
    """Credentials that kopf may not use: nothing else ends it."""

    def refuse(plural: str, _namespace: str | None, watch: bool) -> web.Response | None:
        return status(401, "Unauthorized") if plural == "jobs" and watch else None

    async with fake_api(refuse) as api:
        lease = {"identity": "me", "lease_name": "lease", "lease_namespace": "sys"}
        process = _run(tmp_path, api.url, read_nodes="false", **lease)
        began = time.monotonic()
        text, _ = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == 1, text
        assert re.search("stopping: the part '.*' has ended", text), text
        assert time.monotonic() - began < 20, text
        assert "holderIdentity" not in api.lease["spec"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stolen", [True, False], ids=["lease lost", "signal"])
async def test_the_loss_of_the_lease_is_a_failure_and_a_signal_is_none(
    tmp_path: Path, stolen: bool
) -> None:
    async with fake_api() as api:
        lease = {"identity": "me", "lease_name": "lease", "lease_namespace": "sys"}
        process = _run(tmp_path, api.url, read_nodes="false", **lease)
        while ("jobs", None, True) not in api.asked:  # noqa: ASYNC110 - as a process sees it
            await asyncio.sleep(0.05)
        if stolen:
            api.lease["spec"]["holderIdentity"] = "another"
            api.lease["metadata"]["resourceVersion"] = "0"
        else:
            process.send_signal(signal.SIGTERM)
        text, _ = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == (1 if stolen else 0), text
        assert "has ended" not in text
        assert api.lease["spec"].get("holderIdentity") == ("another" if stolen else None)


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
