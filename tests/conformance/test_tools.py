"""Programs that are pointed at a server: NVIDIA's load generator, and a fuzzer of its OpenAPI."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)
Start = Callable[..., Any]
#: Not `positive_data_acceptance`: JSON Schema can say neither that a pair fits into the model nor
#: that the texts of two fields must pair up.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
    "unsupported_method"
)


async def run(*command: object, **variables: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, output[-20_000:]
    return output


@pytest.mark.parametrize("endpoint", ["nim_rankings", "hf_tei_rankings"])
async def test_aiperf(
    endpoint: str,
    start_gateway: Start,
    triton: Any,
    clients_bin: Path,
    engine_dir: Path,
    tmp_path: Path,
) -> None:
    # Its prompts are made with a tokeniser; ours need not come from anywhere.
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    shutil.copy(engine_dir / "tokenizer.json", tokenizer)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(kind))
    await triton.start()
    gateway = await start_gateway(TRUNCATE="END")
    await gateway.until_ready()
    out = tmp_path / "out"
    await run(
        *(clients_bin / "aiperf", "profile", "--model", "demo", "--tokenizer", tokenizer),
        *("--endpoint-type", endpoint, "--url", f"http://127.0.0.1:{gateway.port}"),
        *("--request-count", "10", "--concurrency", "2", "--rankings-passages-mean", "3"),
        *("--rankings-passages-prompt-token-mean", "5", "--rankings-query-prompt-token-mean", "3"),
        *("--ui-type", "simple", "--output-artifact-dir", out),
        HOME=str(tmp_path),
    )
    found = json.loads((out / "profile_export_aiperf.json").read_text())
    assert found["completed_request_count"]["avg"] == 10
    assert found["error_summary"] == []


async def test_schemathesis(
    start_gateway: Start, triton: Any, clients_bin: Path, tmp_path: Path
) -> None:
    await triton.start()
    gateway = await start_gateway()
    await gateway.until_ready()
    said = await run(
        *(clients_bin / "schemathesis", "run"),
        f"http://127.0.0.1:{gateway.port}/openapi.json",
        *("--checks", CHECKS, "--mode", "all", "--phases", "examples,fuzzing"),
        # One worker: Python 3.11 counts the depth of parsers for all threads together, and fails.
        *("--max-examples", "20", "--seed", "1", "--workers", "1"),
        *("--continue-on-failure", "--warnings", "off"),
        *("--generation-database", "none"),
        HOME=str(tmp_path),
    )
    assert "No issues found" in said
