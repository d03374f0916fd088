"""pull and push as a cluster's Jobs run them: results, digests, signatures, room in the store."""

import base64
import datetime
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import servers
from support.ports import free_port

from engine_builder import transfer
from engine_builder.cli import main
from engine_builder.errors import StageError
from engine_builder.oci import Registry, artefact, look_up, parse_reference
from engine_builder.provenance import examine, load_public_key
from reranker_contracts import Stage, StageReason, StageResult, digest_of, verify_artefact

from .artefacts import ENGINE, published_engine
from .test_provenance import write_pair
from .test_registry import HTPASSWD

DIGEST = digest_of(ENGINE)
OTHER = "0" * 64


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 0)


@pytest.fixture
def reference(host: str) -> str:
    """Where the operator looks for the engine: the tag is its digest."""
    return f"oci://{host}/engines/{uuid.uuid4().hex}:{DIGEST}"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return published_engine(tmp_path)


def job(folder: Path, *arguments: str | Path) -> StageResult:
    """What the operator reads of a Job with these arguments."""
    path = folder / f"result-{uuid.uuid4().hex}"
    code = main([*map(str, arguments), "--plain-http", "--result", str(path)])
    result = StageResult.model_validate_json(path.read_bytes())
    assert result.ok == (code == 0)
    return result


def tag_digest(reference: str) -> str:
    parsed = parse_reference(reference)
    with Registry(parsed, plain_http=True) as registry:
        return look_up(registry, parsed.tag or "")[0].digest


def test_what_one_store_pushed_another_one_pulls(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    pushed = job(tmp_path, "push", engine, reference, "--if-absent")
    assert (pushed.stage, pushed.reason) == (Stage.PUSH, StageReason.SUCCEEDED)
    store = tmp_path / "other"
    pulled = job(tmp_path, "pull", reference, "--store", store, "--digest", DIGEST)
    assert pulled.stage is Stage.PULL
    manifest = verify_artefact(store / "engines" / DIGEST, DIGEST)
    assert pulled.parity == manifest.parity is not None
    assert pulled.size_bytes == manifest.size


def test_the_answer_of_a_tool_is_alone_on_standard_output(
    engine: Path, reference: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(tmp_path, "push", engine, reference)
    assert capsys.readouterr().out.strip().splitlines() == [f"{reference}@{tag_digest(reference)}"]


def test_each_trouble_of_a_registry_has_its_reason(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    def pull(name: str, *more: str | Path) -> StageReason:
        store = tmp_path / "other"
        return job(tmp_path, "pull", name, "--store", store, *more).reason

    assert pull(reference) is StageReason.ARTEFACT_NOT_FOUND
    nobody = f"oci://127.0.0.1:{free_port()}/engines:{DIGEST}"
    assert pull(nobody) is StageReason.REGISTRY_UNREACHABLE
    assert job(tmp_path, "push", engine, nobody).reason is StageReason.REGISTRY_UNREACHABLE
    job(tmp_path, "push", engine, reference)
    # A tag that was moved to another engine.
    assert pull(reference, "--digest", OTHER) is StageReason.CHECKSUM_MISMATCH
    assert not list((tmp_path / "other").glob("*/*"))


def test_a_login_that_is_missing_or_wrong(engine: Path, tmp_path: Path) -> None:
    with servers.registry(tmp_path / "closed", htpasswd=HTPASSWD) as host:
        name, config = f"oci://{host}/engines:{DIGEST}", tmp_path / "config.json"
        assert job(tmp_path, "push", engine, name).reason is StageReason.REGISTRY_UNAUTHORIZED
        for password, reason in (
            ("wrong", StageReason.REGISTRY_UNAUTHORIZED),
            ("secret", StageReason.SUCCEEDED),
        ):
            joined = base64.b64encode(f"builder:{password}".encode()).decode()
            config.write_text(json.dumps({"auths": {host: {"auth": joined}}}))
            pushed = job(tmp_path, "push", engine, name, "--registry-config", config)
            assert pushed.reason is reason
        store = tmp_path / "other"
        refused = job(tmp_path, "pull", name, "--store", store)
        assert refused.reason is StageReason.REGISTRY_UNAUTHORIZED
        assert "spec.engine.registry.secretName" in refused.message
        assert job(tmp_path, "pull", name, "--store", store, "--registry-config", config).ok


def test_a_push_signs_once_and_leaves_what_is_there(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    private, public = write_pair(tmp_path, "ours")
    assert job(tmp_path, "push", engine, reference, "--if-absent").ok
    unsigned = tag_digest(reference)
    signing = ("push", engine, reference, "--if-absent", "--sign-key", private)
    assert "pushed" in job(tmp_path, *signing).message
    signed = tag_digest(reference)
    assert signed != unsigned
    assert "already in" in job(tmp_path, *signing).message
    assert tag_digest(reference) == signed
    assert len((engine / "provenance.intoto.jsonl").read_bytes().splitlines()) == 1
    store = tmp_path / "other"
    assert job(tmp_path, "pull", reference, "--store", store, "--key", public).ok


def test_what_another_builder_pushed_before_stays(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    """The same inputs with other bytes: a tag may be forbidden to move, and serves as well."""
    other = published_engine(tmp_path / "there")
    assert job(tmp_path, "push", other, reference).ok
    before = tag_digest(reference)
    assert "already in" in job(tmp_path, "push", engine, reference, "--if-absent").message
    assert tag_digest(reference) == before


def test_an_unsigned_engine_in_the_store_gives_way_to_a_signed_one(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    private, public = write_pair(tmp_path, "ours")
    other = published_engine(tmp_path / "there")
    assert job(tmp_path, "push", other, reference, "--sign-key", private).ok
    with pytest.raises(StageError):
        examine(engine, key=load_public_key(public))
    store = engine.parents[1]
    pulling = ("pull", reference, "--store", store, "--digest", DIGEST, "--key", public)
    assert "pulled" in job(tmp_path, *pulling).message
    assert examine(engine, digest=DIGEST, key=load_public_key(public)).signed_by
    assert "kept" in job(tmp_path, *pulling).message
    assert list((store / "tmp").iterdir()) == []


@pytest.mark.parametrize("signer", ["nobody", "theirs"])
def test_an_engine_without_the_signature_is_not_downloaded(
    engine: Path, reference: str, tmp_path: Path, signer: str
) -> None:
    _, public = write_pair(tmp_path, "ours")
    sign = () if signer == "nobody" else ("--sign-key", write_pair(tmp_path, signer)[0])
    assert job(tmp_path, "push", engine, reference, *sign).ok
    store = tmp_path / "other"
    refused = job(tmp_path, "pull", reference, "--store", store, "--key", public)
    assert refused.reason is StageReason.SIGNATURE_INVALID
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_a_pull_makes_room_first(engine: Path, reference: str, tmp_path: Path) -> None:
    """A store that is only pulled into is tidied by nobody else."""
    assert job(tmp_path, "push", engine, reference).ok
    store = tmp_path / "other"
    old, needed = store / "engines" / OTHER, store / "engines" / ("1" * 64)
    for path in (old, needed):
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    now = datetime.datetime.now(datetime.UTC).isoformat()
    keep = ("--keep", needed.name, "--made-before", now)
    assert job(tmp_path, "pull", reference, "--store", store, *keep).ok
    assert (store / "engines" / DIGEST).is_dir()
    assert not old.exists()
    assert needed.is_dir()
    # One that is there is needed, whatever the list says.
    assert job(tmp_path, "pull", reference, "--store", store, *keep).ok
    assert (store / "engines" / DIGEST).is_dir()


def test_a_pull_looks_at_the_room_before_it_downloads(
    engine: Path, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier pull left needs no room again, and is not left where there is too little."""
    assert job(tmp_path, "push", engine, reference).ok
    store, size = tmp_path / "other", verify_artefact(engine).size
    usage = shutil.disk_usage(tmp_path)

    def with_room_for(room: int) -> StageResult:
        left = usage._replace(free=artefact.RESERVE + room)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: left)
        return job(tmp_path, "pull", reference, "--store", store)

    left_over = store / "tmp" / uuid.uuid5(uuid.NAMESPACE_URL, tag_digest(reference)).hex
    left_over.mkdir(parents=True)
    (left_over / "model.json").write_bytes(b"{")
    refused = with_room_for(size // 2)
    assert refused.reason is StageReason.STORE_FULL
    assert "free, the download takes" in refused.message
    assert [path for path in store.rglob("*") if path.is_file()] == []
    assert list((store / "tmp").iterdir()) == []
    assert with_room_for(size + 100_000).ok
    verify_artefact(store / "engines" / DIGEST, DIGEST)


def test_a_store_that_gets_full_during_a_pull_is_left_clean(
    engine: Path, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job(tmp_path, "push", engine, reference).ok

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # When everything is downloaded: the disk says so as late as that.
    monkeypatch.setattr(os, "fsync", full)
    store = tmp_path / "other"
    refused = job(tmp_path, "pull", reference, "--store", store)
    assert refused.reason is StageReason.STORE_FULL
    assert list((store / "tmp").iterdir()) == []


def test_retention_needs_both_of_its_arguments(reference: str, tmp_path: Path) -> None:
    arguments = ["pull", reference, "--store", str(tmp_path), "--keep", OTHER, "--plain-http"]
    assert main(arguments) == 2
