"""The command line: usage, results, exit codes, signals."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from engine_builder.cli import main
from engine_builder.commands import COMMANDS
from engine_builder.cpus import available_cpus
from engine_builder.errors import StageError
from engine_builder.exit_codes import EXIT_CODES
from engine_builder.outcome import Outcome
from engine_builder.scratch import work_directory
from reranker_contracts import StageReason, StageResult
from reranker_contracts.stages import MESSAGE_LIMIT


def run(
    *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine_builder", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)


#: Nothing is made where the arguments are looked at first.
BUILD = ("build", "--source", "x", "--out", "/proc/x")
GPU = ("--accelerator", "nvidia")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert ("--result" in output) == (COMMANDS[command].stage is not None)


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
        ([*BUILD, "--precision", "fp16"], "onnxruntime on cpu: fp32 int8"),
        ([*BUILD, "--runtime", "tensorrt-rtx"], "tensorrt-rtx on nvidia: fp32 bf16 fp16"),
        ([*BUILD, *GPU, "--runtime", "openvino"], "openvino on cpu: fp32 bf16 int8"),
        ([*BUILD, *GPU, "--runtime", "tensorrt"], "needs --compute-capability"),
        ([*BUILD, *GPU, "--precision", "bf16"], "needs --compute-capability"),
        ([*BUILD, *GPU, "--runtime=tensorrt", "--compute-capability=8"], "give it as 8.9"),
        ([*BUILD, *GPU, "--runtime=tensorrt-rtx", "--compute-capability=8.7"], "7.5 8.0 8.6"),
        ([*BUILD, *GPU, "--runtime=onnxruntime", "--compute-capability=8.9"], "for any GPU"),
        ([*BUILD, "--compute-capability", "8.9"], "add --accelerator nvidia"),
        ([*BUILD, "--gpu-memory", "1000"], "--gpu-memory is for GPUs"),
        ([*BUILD, "--timing-cache", "x"], "--timing-cache is for GPUs"),
        (["compile", "--prepared=x", "--out=y", *GPU, "--runtime=tensorrt"], "needs --compute"),
        (["resolve", "--source", "x", "--probes", "/nowhere"], "--probes /nowhere"),
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


def test_each_reason_has_one_exit_code_and_the_guide_lists_it() -> None:
    assert set(EXIT_CODES) == set(StageReason)
    guide = (Path(__file__).parents[3] / "docs/cli.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", guide, re.MULTILINE))
    listed = {
        name: int(code) for code, names in rows.items() for name in re.findall(r"`(\w+)`", names)
    }
    assert listed == {reason.value: code for reason, code in EXIT_CODES.items() if code}


def test_failure_leaves_a_result_and_no_traceback(make_source, tmp_path: Path) -> None:
    result = tmp_path / "termination-log"
    result.touch()
    done = run("resolve", "--source", make_source(architectures=["BertModel"]), "--result", result)
    assert (done.returncode, done.stderr) == (5, "")
    found = StageResult.model_validate_json(result.read_bytes())
    assert (found.ok, found.reason) == (False, StageReason.EMBEDDING_MODEL)
    assert "EmbeddingModel" in done.stdout


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
    assert main(["resolve", "--source", str(source), "--result", str(result)]) == 5
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


def test_help_is_printed_in_any_locale() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("build", "--help", env={**os.environ, **plain})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_does_not_end_the_stage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine_builder", "resolve", "--source", str(tmp_path / "x")]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, "--result", str(tmp_path / "result")],
        check=False,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (3, b"")
    found = StageResult.model_validate_json((tmp_path / "result").read_bytes())
    assert found.reason is StageReason.SOURCE_NOT_FOUND


@pytest.mark.parametrize(
    ("out", "code", "says"),
    [
        ("file", 2, "name a directory"),
        ("file/below", 2, "name a directory"),
        ("/proc/x", 2, "name a directory"),
    ],
)
def test_build_looks_at_its_output_before_it_works(
    make_source, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, code: int, says: str
) -> None:
    (tmp_path / "file").touch()
    arguments = ["build", "--source", str(make_source()), "--out", str(tmp_path / out)]
    assert main(arguments) == code
    output = capsys.readouterr()
    assert "reading" not in output.err
    assert says in output.err
    assert "Traceback" not in output.err


def test_a_build_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, young = tmp_path / "engine-build-left", tmp_path / "engine-build-young"
    for folder in (left, young):
        folder.mkdir()
        (folder / "model.onnx").touch()
    os.utime(left, (0, 0))
    with work_directory() as work:
        assert not left.exists()
        os.utime(work, (0, 0))
        with work_directory() as other:
            assert sorted(tmp_path.iterdir()) == sorted([young, work, other])
    assert list(tmp_path.iterdir()) == [young]


def test_a_full_work_folder_is_named_with_its_remedy() -> None:
    with pytest.raises(StageError, match="TMPDIR") as caught, work_directory():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.reason is StageReason.STORE_FULL


@pytest.mark.parametrize("command", ["resolve", "build"])
def test_no_folder_for_work_files_is_named_with_its_remedy(
    make_source,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """As on a read-only root file system with nothing mounted at /tmp."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    arguments = [command, "--source", str(make_source())]
    arguments += ["--out", str(tmp_path / "out")] if command == "build" else []
    assert main(arguments) == 9
    output = capsys.readouterr()
    # Of `build` the path alone is on standard output.
    said, other = (output.err, output.out) if command == "build" else (output.out, output.err)
    assert "StoreUnwritable" in said
    assert "TMPDIR" in said
    assert not other


def test_a_work_folder_that_was_named_is_not_passed_over(
    make_source,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    assert main(["resolve", "--source", str(make_source())]) == 9
    assert f"TMPDIR {tmp_path / 'none'}" in capsys.readouterr().out
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with work_directory():
        pass


def test_what_is_measured_later_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Outcome("not measured here", reason=StageReason.TARGET_ABSENT)
    command = replace(COMMANDS["validate"], run=lambda *_: later)
    monkeypatch.setitem(COMMANDS, "validate", command)
    result = tmp_path / "result.json"
    assert main(["validate", "--prepared=x", "--engine=y", f"--result={result}"]) == 0
    assert "Succeeded: not measured here" in capsys.readouterr().out
    found = StageResult.model_validate_json(result.read_bytes())
    assert (found.ok, found.reason) == (True, StageReason.TARGET_ABSENT)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    assert capsys.readouterr().out.strip() == project["project"]["version"]


def test_a_missing_library_is_named_with_its_remedy(
    make_source,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "engine_builder.stages.export", None)
    assert main(["export", "--source", str(make_source()), "--out", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    assert "is not installed; run this in the engine-builder image" in output.out
    assert not output.err


def test_a_log_on_a_full_disk_does_not_end_the_stage(make_source, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine_builder", "fetch", "--source", str(make_source())]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--revision", "x", "--out", tmp_path / "out", "--result", tmp_path / "r"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (done.returncode, done.stderr) == (3, b"")
    found = StageResult.model_validate_json((tmp_path / "r").read_bytes())
    assert found.reason is StageReason.SOURCE_CHANGED


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
