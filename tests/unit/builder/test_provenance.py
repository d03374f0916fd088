"""The record of a build, its in-toto statement and signatures, and what is made of them."""

import base64
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from engine_builder.cli import main
from engine_builder.errors import StageError
from engine_builder.progress import Progress
from engine_builder.provenance import examine, load_public_key, load_signing_key, sign_directory
from engine_builder.record import recorded
from engine_builder.sources import open_source
from engine_builder.stages.fetch import fetch
from engine_builder.stages.publish import publish
from engine_builder.store import Store
from engine_builder.tools.report import render
from reranker_contracts import ArtefactManifest, StageReason, digest_of

from .artefacts import ENGINE, engine_files, published_engine

Pair = tuple[Path, Path]


def write_pair(
    folder: Path,
    name: str,
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | None = None,
    encryption: KeySerializationEncryption | None = None,
) -> Pair:
    """Private and public key in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    pem = (Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    private.write_bytes(key.private_bytes(*pem))
    form = PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, form))
    return private, public


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return published_engine(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_pair(tmp_path, "ours")


def refusal(directory: Path, public: Path) -> StageError:
    with pytest.raises(StageError) as caught:
        examine(directory, key=load_public_key(public))
    return caught.value


def test_statement_names_the_manifest_and_every_file(engine: Path) -> None:
    statement = json.loads((engine / "provenance.json").read_bytes())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    files = {path for path in engine.rglob("*") if path.is_file()} - {engine / "provenance.json"}
    assert subjects == {
        path.relative_to(engine).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    definition = statement["predicate"]["buildDefinition"]
    identity = definition["externalParameters"]["identity"]
    assert identity == ENGINE.model_dump(mode="json", by_alias=True)
    details = statement["predicate"]["runDetails"]
    assert details["metadata"]["invocationId"] == digest_of(ENGINE)
    assert details["byproducts"][0]["annotations"]["kendallTau"] == 1


def test_record_follows_the_stages(
    make_source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From fetch through export and compile into the engine's manifest."""
    monkeypatch.setenv("BUILDER_IMAGE", "registry.example/builder@sha256:" + "a" * 64)
    progress, source = Progress("test"), make_source()
    fetched = tmp_path / "fetched"
    revision = "sha256:" + "0" * 64
    with (
        pytest.raises(StageError, match="by now") as changed,
        recorded(progress, "fetch", fetched),
    ):
        fetch(str(source), revision=revision, source_dir=None, out=fetched, progress=progress)
    revision = changed.value.message.split()[3]
    with recorded(progress, "fetch", fetched):
        fetch(str(source), revision=revision, source_dir=None, out=fetched, progress=progress)
    files = engine_files(tmp_path / "engine-files")
    with recorded(progress, "compile", files, after=fetched):
        pass
    for _again in range(2):
        with recorded(progress, "validate", files, after=files):
            pass
    publish(files, tmp_path / "store", ENGINE, progress=progress)
    path = Store(tmp_path / "store").path_of("engine", digest_of(ENGINE))
    manifest = ArtefactManifest.model_validate_json((path / "manifest.json").read_bytes())
    assert manifest.build is not None
    assert (manifest.build.source, manifest.build.revision) == ("dir:demo", revision)
    assert [stage.stage for stage in manifest.build.stages] == ["fetch", "compile", "validate"]
    dependencies = json.loads((path / "provenance.json").read_bytes())["predicate"][
        "buildDefinition"
    ]["resolvedDependencies"]
    found = {entry["name"]: entry["digest"] for entry in dependencies}
    assert found == {
        "source": {"treeSha256": revision.removeprefix("sha256:")},
        "prepared": {"identitySha256": ENGINE.prepared},
        "builder": {"sha256": "a" * 64},
    }


def test_record_and_statement_name_the_adapter(make_source, tmp_path: Path) -> None:
    """By the command that a cluster's Job runs; export takes its record over."""
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text("{}")
    (lora / "adapter_model.safetensors").write_bytes(b"weights")
    # The base model's, as trainers leave it.
    (lora / "config.json").write_text("{}")
    pinned = {}
    for content, source in (("model", make_source()), ("adapter", lora)):
        (tmp_path / f"scratch-{content}").mkdir()
        found = open_source(str(source), None, content).resolve(
            None, tmp_path / f"scratch-{content}"
        )
        command = "fetch-adapter" if content == "adapter" else "fetch"
        arguments = [command, f"--source={source}", f"--revision={found.revision}"]
        assert main([*arguments, f"--out={tmp_path / content}"]) == 0
        pinned[content] = found.revision
    files = engine_files(tmp_path / "engine-files")
    with recorded(
        Progress("test"), "export", files, after=tmp_path / "model", adapter=tmp_path / "adapter"
    ):
        pass
    publish(files, tmp_path / "store", ENGINE, progress=Progress("test"))
    path = Store(tmp_path / "store").path_of("engine", digest_of(ENGINE))
    record = ArtefactManifest.model_validate_json((path / "manifest.json").read_bytes()).build
    assert record is not None
    assert (record.source, record.revision) == ("dir:demo", pinned["model"])
    assert (record.adapter, record.adapter_revision) == ("dir:lora", pinned["adapter"])
    assert [stage.stage for stage in record.stages] == ["fetch", "fetch-adapter", "export"]
    definition = json.loads((path / "provenance.json").read_bytes())["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["adapter"] == "dir:lora"
    dependencies = {entry["name"]: entry for entry in definition["resolvedDependencies"]}
    assert dependencies["adapter"] == {
        "name": "adapter",
        "uri": "dir:lora",
        "digest": {"treeSha256": pinned["adapter"].removeprefix("sha256:")},
    }


@pytest.mark.parametrize("kind", ["p256", "ed25519", "password"])
def test_signed_and_checked(engine: Path, tmp_path: Path, kind: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else None
    encryption = BestAvailableEncryption(b"secret") if kind == "password" else None
    private, public = write_pair(tmp_path, "k", key, encryption)
    assert refusal(engine, public).reason is StageReason.SIGNATURE_INVALID
    signer = load_signing_key(private, "secret" if kind == "password" else None)
    sign_directory(engine, signer)
    assert examine(engine, key=load_public_key(public)).signed_by == signer.public.id
    # Whole for those who ask for no signature, and for the gateway's check.
    assert examine(engine).claimed_keys == (signer.public.id,)


def test_openssl_agrees_with_the_signature(engine: Path, tmp_path: Path, pair: Pair) -> None:
    """Another implementation checks DSSE's encoding and the signature's form."""
    sign_directory(engine, load_signing_key(pair[0], None))
    envelope = json.loads((engine / "provenance.intoto.jsonl").read_bytes())
    payload = base64.b64decode(envelope["payload"])
    assert payload == (engine / "provenance.json").read_bytes()
    kind = envelope["payloadType"]
    assert kind == "application/vnd.in-toto+json"
    encoded = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (tmp_path / "message").write_bytes(encoded)
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", pair[1], "-signature", tmp_path / "signature",
         tmp_path / "message"],
        check=True, capture_output=True,
    )  # fmt: skip


def test_several_may_sign(engine: Path, tmp_path: Path, pair: Pair) -> None:
    other = write_pair(tmp_path, "other")
    for private, _public in (pair, other):
        sign_directory(engine, load_signing_key(private, None))
    for _private, public in (pair, other):
        examine(engine, key=load_public_key(public))
    assert "not signed" not in refusal(engine, write_pair(tmp_path, "third")[1]).message


def test_what_a_killed_signer_leaves_is_swept(
    engine: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = load_signing_key(pair[0], None)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        try:
            sign_directory(engine, signer)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(engine.parent.iterdir()) == [engine]
    folder = engine.parent.parent / "tmp"
    assert list(folder.iterdir())
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    Store(folder.parent).remove("0" * 64)
    assert list(folder.iterdir()) == []
    sign_directory(engine, signer)
    assert list(folder.iterdir()) == []


def test_forged_signatures_are_refused(engine: Path, tmp_path: Path, pair: Pair) -> None:
    private, public = pair
    sign_directory(engine, load_signing_key(private, None))
    path = engine / "provenance.intoto.jsonl"
    good = json.loads(path.read_bytes())
    other = json.loads(base64.b64decode(good["payload"]))
    other["subject"][0]["digest"]["sha256"] = "0" * 64
    forged = base64.b64encode(json.dumps(other).encode()).decode()
    nested = "[" * 100_000
    for envelope in (
        good | {"payload": forged},
        good | {"payloadType": "text/plain"},
        good | {"signatures": []},
        good | {"signatures": [{"keyid": good["signatures"][0]["keyid"], "sig": "AAAA"}]},
        good | {"signatures": [7, {"sig": None}, {"sig": "!"}]},
        good | {"payload": 7},
    ):
        path.write_text(json.dumps(envelope) + "\n")
        assert refusal(engine, public).reason is StageReason.SIGNATURE_INVALID
    for text in ("", "\n\n", nested, "null", "7"):
        path.write_text(text)
        assert refusal(engine, public).reason is StageReason.SIGNATURE_INVALID


def test_a_signature_is_of_one_artefact(tmp_path: Path, pair: Pair) -> None:
    """Files of one engine with the envelope of another, both signed by the same hand."""
    signer = load_signing_key(pair[0], None)
    first, second = tmp_path / "first", tmp_path / "second"
    engines = [published_engine(folder) for folder in (first, second)]
    for directory in engines:
        sign_directory(directory, signer)
    name = "provenance.intoto.jsonl"
    (engines[0] / name).write_bytes((engines[1] / name).read_bytes())
    assert refusal(engines[0], pair[1]).reason is StageReason.SIGNATURE_INVALID
    (engines[0] / "provenance.json").write_bytes((engines[1] / "provenance.json").read_bytes())
    with pytest.raises(StageError, match="another manifest"):
        examine(engines[0])


def _forged(directory: Path) -> bytes:
    """Its statement, about the same manifest and with another source."""
    statement = json.loads((directory / "provenance.json").read_bytes())
    statement["predicate"]["buildDefinition"]["externalParameters"]["source"] = "hf://good/model"
    return json.dumps(statement).encode()


def test_a_forged_statement_beside_a_signed_one_is_refused(engine: Path, pair: Pair) -> None:
    sign_directory(engine, load_signing_key(pair[0], None))
    (engine / "provenance.json").write_bytes(_forged(engine))
    found = refusal(engine, pair[1])
    assert found.reason is StageReason.SIGNATURE_INVALID
    assert "provenance.json is not what the key" in found.message
    # Nothing is left to believe that was not signed.
    (engine / "provenance.json").unlink()
    assert examine(engine, key=load_public_key(pair[1])).signed_by


def test_a_forged_statement_is_not_signed(engine: Path, pair: Pair) -> None:
    (engine / "provenance.json").write_bytes(_forged(engine))
    with pytest.raises(StageError, match="delete the other one and sign again") as caught:
        sign_directory(engine, load_signing_key(pair[0], None))
    assert caught.value.reason is StageReason.CHECKSUM_MISMATCH
    assert not (engine / "provenance.intoto.jsonl").exists()
    (engine / "provenance.json").unlink()
    sign_directory(engine, load_signing_key(pair[0], None))
    envelope = json.loads((engine / "provenance.intoto.jsonl").read_bytes())
    assert b"hf://good/model" not in base64.b64decode(envelope["payload"])


def test_a_directory_that_nobody_published_is_told_so(engine: Path) -> None:
    with pytest.raises(StageError, match=r"no published directory.*engines/DIGEST") as caught:
        examine(engine.parent)
    assert caught.value.reason is StageReason.CHECKSUM_MISMATCH


def test_published_with_a_key_is_signed_from_the_start(tmp_path: Path, pair: Pair) -> None:
    files = engine_files(tmp_path / "files")
    arguments = ["publish", "--from", str(files), "--store", str(tmp_path / "store")]
    arguments += ["--identity", ENGINE.to_json(), "--sign-key", str(pair[0])]
    assert main(arguments) == 0
    directory = tmp_path / "store/engines" / digest_of(ENGINE)
    assert main(["verify", str(directory), "--key", str(pair[1])]) == 0


def test_keys_of_other_kinds_are_wrong_usage(
    engine: Path, tmp_path: Path, pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = write_pair(
        tmp_path, "rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    locked, _ = write_pair(tmp_path, "locked", encryption=BestAvailableEncryption(b"secret"))
    cosign = tmp_path / "cosign.key"
    cosign.write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    for bad in (private, locked, cosign, tmp_path / "none", engine / "model.json"):
        assert main(["sign", str(engine), "--sign-key", str(bad)]) == 2
        assert str(bad) in capsys.readouterr().err
    for bad in (public, pair[0], tmp_path / "none"):
        assert main(["verify", str(engine), "--key", str(bad)]) == 2
        assert str(bad) in capsys.readouterr().err


def test_verify_exits_by_kind_of_damage(
    engine: Path, pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(engine), "--digest", digest_of(ENGINE)]) == 0
    assert main(["verify", str(engine), "--key", str(pair[1])]) == 8
    output = capsys.readouterr()
    assert "SignatureInvalid" in output.err
    assert not output.out
    assert main(["verify", str(engine), "--digest", "f" * 64]) == 8
    graph = engine / "repository/reranker/1/model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert main(["verify", str(engine)]) == 8
    assert "model.onnx does not match" in capsys.readouterr().err


def test_signatures_may_be_required_by_the_environment(
    engine: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_BUILDER_REQUIRE_SIGNED", str(pair[1]))
    assert main(["verify", str(engine)]) == 8
    assert main(["inspect", str(engine)]) == 8
    assert main(["sign", str(engine), "--sign-key", str(pair[0])]) == 0
    assert main(["verify", str(engine)]) == 0
    monkeypatch.setenv("ENGINE_BUILDER_REQUIRE_SIGNED", "/nowhere.pub")
    assert main(["verify", str(engine)]) == 2, "a key that is not there is not no key"


def test_inspect_prints_what_the_manifest_says(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(engine)]) == 0
    output = capsys.readouterr()
    for words in (digest_of(ENGINE), "kendallTau 1", "model.onnx", "intact, with provenance"):
        assert words in output.out
    assert "Succeeded" in output.err
    assert main(["inspect", "--json", str(engine)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["intact"], found["manifest"]["digest"]) == (True, digest_of(ENGINE))
    (engine / "model.json").write_text("{}")
    assert main(["inspect", str(engine)]) == 8
    output = capsys.readouterr().out
    assert "ChecksumMismatch" in output
    assert digest_of(ENGINE) in output, "what is damaged is printed all the same"
    (engine / "manifest.json").unlink()
    assert main(["inspect", str(engine)]) == 8
    assert main(["inspect", str(engine / "nowhere")]) == 2


def test_inspect_tells_of_an_engine_that_is_measured_later(engine: Path) -> None:
    text = (engine / "manifest.json").read_bytes()
    manifest = ArtefactManifest.model_validate_json(text).model_copy(update={"parity": None})
    assert "pods that serve it measure it" in render(manifest, {})


def test_links_beside_the_manifest_are_refused(engine: Path) -> None:
    (engine / "provenance.json").unlink()
    (engine / "provenance.json").symlink_to("/etc/passwd")
    with pytest.raises(StageError, match="not a regular file") as caught:
        examine(engine)
    assert caught.value.reason is StageReason.CHECKSUM_MISMATCH
