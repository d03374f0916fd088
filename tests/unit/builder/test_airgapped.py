"""With the network cut: what needs none works, and what does says so at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reranker_contracts import Stage, StageReason, StageResult, digest_of

from .artefacts import ENGINE, engine_files, published_engine

_CUT = ["unshare", "--net"]


@pytest.fixture(scope="module", autouse=True)
def _cut() -> None:
    if subprocess.run([*_CUT, "true"], check=False, capture_output=True).returncode:
        pytest.skip("taking the network away needs root (unshare --net)")


def cut_off(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The builder in a network of its own that leads nowhere, not even to itself."""
    command = [*_CUT, sys.executable, "-m", "engine_builder", *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=100
    )


def test_mounted_sources_and_the_store_need_no_network(make_source, tmp_path: Path) -> None:
    """As in a cluster: an image's files or a claim are read, the store is written and checked."""
    source, out, result = make_source(), tmp_path / "out", tmp_path / "result.json"
    for uri in ("oci://registry.example/models/demo:1", "pvc://claim"):
        arguments = ["--source", uri, "--source-dir", source]
        # Which revision it is, the refusal of a wrong one tells: `resolve` needs the image.
        done = cut_off("fetch", *arguments, "--revision", "x", "--out", out, "--result", result)
        assert done.returncode == 3
        told = StageResult.model_validate_json(result.read_bytes())
        assert told.reason is StageReason.SOURCE_CHANGED
        revision = told.message.split()[3].strip(",")
        done = cut_off("fetch", *arguments, "--revision", revision, "--out", out)
        assert done.returncode == 0, done.stdout + done.stderr
    files = engine_files(tmp_path / "engine-files")
    store = tmp_path / "store"
    done = cut_off("publish", "--from", files, "--store", store, "--identity", ENGINE.to_json())
    assert done.returncode == 0, done.stdout
    engine = store / "engines" / digest_of(ENGINE)
    assert cut_off("verify", engine).returncode == 0
    found = json.loads(cut_off("inspect", "--json", engine).stdout)
    assert found["intact"] is True
    assert cut_off("remove", "--store", store, "--digest", engine.name).returncode == 0


@pytest.mark.parametrize(
    "source",
    ["hf://org/model", "ngc://org/model:1", "s3://bucket/model", "https://host.example/m.tar.gz"],
)
def test_remote_sources_say_that_nobody_answers(tmp_path: Path, source: str) -> None:
    result = tmp_path / "result.json"
    revision = "a" * 40 if source.startswith("hf") else f"sha256:{'a' * 64}"
    done = cut_off(
        *("fetch", "--source", source, "--revision", revision),
        *("--out", tmp_path / "out", "--result", result),
        AWS_REGION="us-east-1",
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stderr == ""
    told = StageResult.model_validate_json(result.read_bytes())
    assert (told.stage, told.reason) == (Stage.FETCH, StageReason.SOURCE_UNREACHABLE)
    assert "spec.proxy" in told.message


def test_registries_say_that_nobody_answers(tmp_path: Path) -> None:
    engine = published_engine(tmp_path)
    name = "oci://registry.example/engines/demo:1"
    assert cut_off("push", engine, name).returncode == 4
    assert cut_off("pull", name, "--store", tmp_path / "other").returncode == 4
    assert cut_off("inspect", name).returncode == 4
