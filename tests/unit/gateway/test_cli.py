"""Commands, exit codes and messages."""

import json
from pathlib import Path

import pytest

from reranker_gateway.cli import main
from reranker_gateway.engine_files import EngineInvalidError, load_engine
from reranker_gateway.settings import SettingsError, load_settings


def test_verify_accepts_an_intact_engine(engine_dir: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    assert main(["verify", "--engine", str(engine_dir), "--result", str(result)]) == 0
    found = json.loads(result.read_text())
    assert (found["stage"], found["ok"], found["reason"]) == ("verify", True, "Succeeded")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("repository/reranker/1/model.onnx", "model.onnx does not match its sha256"),
        ("model.json", "model.json does not match its sha256"),
        ("manifest.json", "manifest.json is malformed"),
    ],
)
def test_verify_names_the_damaged_file(
    engine_dir: Path, tmp_path: Path, name: str, message: str
) -> None:
    result = tmp_path / "result.json"
    (engine_dir / name).write_bytes(b"damaged")
    assert main(["verify", "--engine", str(engine_dir), "--result", str(result)]) == 1
    found = json.loads(result.read_text())
    assert found["reason"] == "ChecksumMismatch"
    assert message in found["message"]


def test_verify_tells_another_version_from_damage(engine_dir: Path, tmp_path: Path) -> None:
    result, manifest = tmp_path / "result.json", engine_dir / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schemaVersion":1', '"schemaVersion":2'))
    assert main(["verify", "--engine", str(engine_dir), "--result", str(result)]) == 1
    found = json.loads(result.read_text())
    assert found["reason"] == "EngineVersionMismatch"
    assert "schemaVersion 2, this gateway reads 1; use" in found["message"]


def test_verify_refuses_another_engine(
    engine_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = json.loads((engine_dir / "manifest.json").read_text())["digest"]
    assert main(["verify", "--engine", str(engine_dir), "--digest", digest]) == 0
    assert main(["verify", "--engine", str(engine_dir), "--digest", "f" * 64]) == 1
    assert f"is of {digest[:10]}, expected ffffffffff" in capsys.readouterr().err


def test_verify_without_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--engine", str(tmp_path / "none")]) == 1
    assert "manifest.json cannot be read" in capsys.readouterr().err


def test_serve_refuses_wrong_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RERANKER_HTTP_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("RERANKER_TRUNCATE", "START")
    assert main(["serve"]) == 2
    said = capsys.readouterr().err
    assert "RERANKER_HTTP_PORT='tcp://10.0.0.1:80': " in said
    assert "RERANKER_TRUNCATE='START': " in said


def test_serve_refuses_a_directory_without_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RERANKER_ENGINE_DIR", str(tmp_path))
    assert main(["serve"]) == 1
    assert "manifest.json cannot be read" in capsys.readouterr().err


def test_usage_errors_exit_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["verify"])
    assert caught.value.code == 2


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKER_ALIASES", "a, b,,")
    monkeypatch.setenv("RERANKER_SERVED_NAME", "")
    settings = load_settings()
    assert settings.aliases == ("a", "b")
    assert settings.served_name is None
    monkeypatch.setenv("RERANKER_MAX_PASSAGES", "0")
    with pytest.raises(SettingsError, match="RERANKER_MAX_PASSAGES='0'"):
        load_settings()


def test_an_engine_without_tokeniser_is_named(engine_dir: Path) -> None:
    (engine_dir / "tokenizer.json").unlink()
    with pytest.raises(EngineInvalidError, match=r"tokenizer\.json cannot be read"):
        load_engine(engine_dir)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--min-kendall-tau", "nan"), ("--min-kendall-tau", "1.01"), ("--max-ndcg-delta", "-0.1")],
)
def test_thresholds_that_refuse_nothing_are_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["measure", "--engine", str(tmp_path), f"{option}={value}"])
    assert caught.value.code == 2
    assert f"{option}: {value} is not between" in capsys.readouterr().err
