"""Rerank clients as their users install them, against the real gateway process.

The clients live in an environment of their own (`build/conformance`, made from
requirements/conformance.txt), and so do the files in `clients/`: each is a small pytest module that
this environment's pytest runs, with the servers' addresses in the environment.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.gateway_process import engine_dir, start_gateway, triton

__all__ = ["engine_dir", "start_gateway", "triton"]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "build/conformance"
CLIENTS = Path(__file__).parent / "clients"
#: No client may ask for anything from elsewhere: models, prices, telemetry.
OFFLINE = {
    "ANONYMIZED_TELEMETRY": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
    "SCHEMATHESIS_HOOKS": "",
    "TRANSFORMERS_OFFLINE": "1",
}


@pytest.fixture(scope="session")
def clients_bin() -> Path:
    """Where the clients' programs are; they are installed when that is due."""
    made = subprocess.run(
        ["make", "--no-print-directory", "build/conformance/.ready"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, f"the clients cannot be installed:\n{made.stdout}{made.stderr}"
    return ENVIRONMENT / "bin"


@pytest.fixture
def run_client(clients_bin: Path) -> Callable[..., Any]:
    """Runs one file of `clients/`, with these variables; it must pass, and not skip all."""

    async def run(name: str, **variables: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(clients_bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-c", CLIENTS / "pytest.ini", "--rootdir", CLIENTS, CLIENTS / name),
            env=os.environ | OFFLINE | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode(errors="replace")[-20_000:]

    return run
