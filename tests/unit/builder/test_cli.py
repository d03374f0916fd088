"""The command line: usage, results, exit codes, signals."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine_builder.cli import main
from engine_builder.commands import COMMANDS
from engine_builder.cpus import available_cpus
from reranker_contracts import StageReason, StageResult
from reranker_contracts.stages import MESSAGE_LIMIT


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine_builder", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--result" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["resolve", "--source", "oci://x/y"], "--source-dir"),
        (["resolve", "--source", "hf://a/b", "--source-dir", "/tmp"], "--source-dir"),
        (["resolve", "--source", "x", "--max-length", "7"], "from 8"),
        (["compile", "--prepared", "x", "--out", "y", "--max-batch-size", "0"], "from 1"),
        (["publish", "--from", "/nowhere", "--store", "s", "--identity", "{}"], "/nowhere"),
        (["publish", "--from", "/tmp", "--store", "s", "--identity", "{}"], "--identity"),
        (["publish", "--from", "/tmp", "--store", "s", "--identity", "/nowhere"], "/nowhere"),
        (["publish", "--from", "/tmp", "--store", "s", "--identity", "{}", "--keep"], "both"),
        (["publish", "--made-before", "2026-01-31T12:00:00"], "2026-01-31T12:00:00Z"),
        (["publish", "--keep", "../../home"], "64 hex digits"),
        (["remove", "--store", "/tmp", "--digest", "../../home"], "64 hex digits"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_names_the_argument(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    assert says in capsys.readouterr().err


def test_failure_leaves_a_result_and_no_traceback(make_source, tmp_path: Path) -> None:
    result = tmp_path / "termination-log"
    result.touch()
    done = run("resolve", "--source", make_source(architectures=["BertModel"]), "--result", result)
    assert (done.returncode, done.stderr) == (1, "")
    found = StageResult.model_validate_json(result.read_bytes())
    assert (found.ok, found.reason) == (False, StageReason.NOT_A_CROSS_ENCODER)
    assert "NotACrossEncoder" in done.stdout


def test_defect_is_an_internal_error_with_its_traceback_in_the_log(
    tmp_path: Path,
) -> None:
    result = tmp_path / "result.json"
    store = tmp_path / "store"
    store.mkdir()
    (store / "tmp").write_text("a file where a directory belongs")
    done = run("remove", "--store", store, "--digest", "a" * 64, "--result", result)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    found = StageResult.model_validate_json(result.read_bytes())
    assert found.reason is StageReason.INTERNAL_ERROR
    assert "\n" not in found.message


def test_long_hostile_names_keep_the_result_within_its_limit(tmp_path: Path, make_source) -> None:
    source = make_source(architectures=["é\u2028" * 5000])
    result = tmp_path / "result.json"
    assert main(["resolve", "--source", str(source), "--result", str(result)]) == 1
    assert len(result.read_bytes()) <= MESSAGE_LIMIT
    StageResult.model_validate_json(result.read_bytes())


def test_termination_ends_a_waiting_stage_at_once(tmp_path: Path) -> None:
    """The hub accepts the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        command = [sys.executable, "-m", "engine_builder", "resolve", "--source", "hf://a/b"]
        with subprocess.Popen(
            [*command, "--result", str(tmp_path / "result")],
            env=environment,
            stderr=subprocess.PIPE,
        ) as stage:
            connection, _address = silent.accept()
            with connection:
                assert connection.recv(3) == b"GET"
                stage.send_signal(signal.SIGTERM)
                _output, errors = stage.communicate(timeout=60)
    assert (stage.returncode, errors) == (143, b"")
    assert not (tmp_path / "result").exists()


@pytest.mark.builder
def test_resolve_loads_nothing_heavy(make_source, tmp_path: Path) -> None:
    program = (
        "import sys; from engine_builder.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'onnxruntime', 'onnx', 'scipy', 'numpy'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", program, "resolve"),
            f"--source={make_source()}",
            f"--result={tmp_path / 'result'}",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    found = StageResult.model_validate_json((tmp_path / "result").read_bytes())
    assert found.resolved is not None
    assert found.resolved.toolchain.torch


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_cpu_limit_bounds_the_threads(
    tmp_path: Path, files: dict[str, str], cpus: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))
