"""Publishing: complete or not there, whatever is killed, full, corrupt or done twice."""

import datetime
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_builder.artefacts import CompiledEngine, write_document
from engine_builder.errors import StageError
from engine_builder.progress import Progress
from engine_builder.retention import Retention
from engine_builder.shapes import dynamic_shapes
from engine_builder.stages.publish import publish
from engine_builder.stages.remove import remove
from engine_builder.store import ABANDONED_AFTER, Store
from reranker_contracts import (
    EngineIdentity,
    EngineTarget,
    IntegrityError,
    PairTemplate,
    ParityReport,
    PrepareIdentity,
    ServedModel,
    StageReason,
    Toolchain,
    digest_of,
    verify_artefact,
    write_manifest,
)
from reranker_contracts.model import PassagePiece, QueryPiece

from .artefacts import ENGINE, engine_files, published_engine

IDENTITY = PrepareIdentity(
    revision="sha256:1",
    toolchain=Toolchain(
        recipe=1, torch="2", transformers="5", tokenizers="0", peft="0", onnx="1", onnxruntime="1"
    ),
)
DIGEST = digest_of(IDENTITY)
PROGRESS = Progress("publish")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    directory = tmp_path / "prepared-files"
    directory.mkdir()
    model = ServedModel(
        name="demo",
        architecture="BertForSequenceClassification",
        family="bert",
        max_length=512,
        pad_id=0,
        template=PairTemplate(pieces=(QueryPiece(), PassagePiece())),
        inputs=("input_ids", "attention_mask"),
    )
    (directory / "model.json").write_text(model.to_json())
    for name in ("tokenizer.json", "probe.json", "reference.json"):
        (directory / name).write_text("{}")
    (directory / "model.onnx").write_bytes(os.urandom(200_000))
    (directory / "scratch.txt").write_text("not part of the artefact")
    return directory


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def published(store: Path) -> Path:
    return store / "prepared" / DIGEST


def leftovers(store: Path) -> list[str]:
    return sorted(entry.name for entry in (store / "tmp").iterdir())


def test_publish_holds_what_the_contract_says(prepared: Path, store: Path) -> None:
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    manifest = verify_artefact(published(store), DIGEST)
    assert manifest.identity == IDENTITY
    assert {entry.path for entry in manifest.files} == {
        "model.json",
        "tokenizer.json",
        "model.onnx",
        "probe.json",
        "reference.json",
    }
    assert (manifest.shapes, manifest.parity, leftovers(store)) == (None, None, [])


def test_engine_manifest_carries_shapes_and_parity(prepared: Path, store: Path) -> None:
    version = prepared / "repository/reranker/1"
    version.mkdir(parents=True)
    (prepared / "model.onnx").rename(version / "model.onnx")
    (version.parent / "config.pbtxt").write_text('name: "reranker"\nmax_batch_size: 32\n')
    target = EngineTarget(
        runtime="onnxruntime", precision="fp32", accelerator="cpu", max_batch_size=32
    )
    compiled = CompiledEngine(target=target, shapes=dynamic_shapes(64, 32))
    write_document(prepared / "compiled.json", compiled)
    report = ParityReport(pairs=2, queries=1, kendall_tau=1, ndcg10_delta=0, max_abs_diff=0.0001)
    (prepared / "parity.json").write_text(report.to_json())
    identity = EngineIdentity(
        prepared=DIGEST,
        runtime="onnxruntime",
        precision="fp32",
        accelerator="cpu",
        max_batch_size=32,
        version="1",
        recipe=1,
    )
    done = publish(prepared, store, identity, progress=PROGRESS)
    manifest = verify_artefact(store / "engines" / digest_of(identity))
    assert (manifest.parity, manifest.shapes) == (report, done.shapes)
    assert manifest.shapes is not None
    assert (manifest.shapes.max_batch_size, manifest.shapes.token_budget) == (32, 8192)
    other = identity.model_copy(update={"max_batch_size": 64})
    with pytest.raises(StageError, match=r"on cpu and 32 rows, .* on cpu and 64"):
        publish(prepared, store, other, progress=PROGRESS)


def test_unfinished_directory_is_not_published(prepared: Path, store: Path) -> None:
    (prepared / "reference.json").unlink()
    with pytest.raises(StageError, match=r"reference\.json is missing"):
        publish(prepared, store, IDENTITY, progress=PROGRESS)
    assert not store.exists()


def test_intact_artefact_is_kept_and_corrupt_one_replaced(prepared: Path, store: Path) -> None:
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    before = (published(store) / "manifest.json").stat().st_ino
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    assert (published(store) / "manifest.json").stat().st_ino == before
    for damage in (
        lambda: (published(store) / "model.onnx").write_bytes(b"bit rot"),
        (published(store) / "manifest.json").unlink,
        lambda: (published(store) / "extra").symlink_to("/etc/passwd"),
        lambda: (shutil.rmtree(published(store)), published(store).write_text("a file")),
    ):
        damage()
        publish(prepared, store, IDENTITY, progress=PROGRESS)
        verify_artefact(published(store), DIGEST)
        assert leftovers(store) == []


def test_an_engine_built_here_takes_the_place_of_another_one(tmp_path: Path) -> None:
    """The same inputs, and whole: but nobody knows who made it, say one pulled unchecked."""
    theirs = published_engine(tmp_path)
    model = theirs / "repository/reranker/1/model.onnx"
    foreign = model.read_bytes()
    files = engine_files(tmp_path / "built-here")
    with model.open("rb") as served:
        done = publish(files, tmp_path / "store", ENGINE, progress=PROGRESS)
        assert "published" in done.message
        assert served.read() == foreign, "a pod that runs it goes on"
    assert model.read_bytes() == (files / "repository/reranker/1/model.onnx").read_bytes()
    verify_artefact(theirs, digest_of(ENGINE))
    before = (theirs / "manifest.json").stat().st_ino
    assert "kept" in publish(files, tmp_path / "store", ENGINE, progress=PROGRESS).message
    assert (theirs / "manifest.json").stat().st_ino == before
    assert leftovers(tmp_path / "store") == []


def test_a_manifest_that_says_something_else_of_the_same_files_is_replaced(tmp_path: Path) -> None:
    """Its parity is believed and its provenance is signed."""
    engine = published_engine(tmp_path)
    manifest = verify_artefact(engine)
    assert manifest.parity is not None
    praised = manifest.parity.model_copy(update={"pairs": 10_000})
    (engine / "manifest.json").unlink()
    write_manifest(engine, manifest.model_copy(update={"parity": praised}))
    assert verify_artefact(engine).parity == praised
    publish(tmp_path / "engine-files", tmp_path / "store", ENGINE, progress=PROGRESS)
    assert verify_artefact(engine).parity == manifest.parity


def test_builders_of_different_engines_of_one_digest_all_come_to_their_end(tmp_path: Path) -> None:
    store = tmp_path / "store"
    sources = [engine_files(tmp_path / f"built-{number}") for number in range(4)]
    barrier, outcomes = threading.Barrier(4), []

    def work(source: Path) -> None:
        barrier.wait()
        outcomes.append(publish(source, store, ENGINE, progress=PROGRESS).message)

    threads = [threading.Thread(target=work, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    verify_artefact(store / "engines" / digest_of(ENGINE), digest_of(ENGINE))
    assert leftovers(store) == []


def test_concurrent_publishers_all_succeed_and_one_wins(prepared: Path, store: Path) -> None:
    for corrupt_first in (False, True):
        if corrupt_first:
            (published(store) / "model.onnx").write_bytes(b"bit rot")
        barrier, outcomes = threading.Barrier(4), []

        def work(barrier: threading.Barrier = barrier, outcomes: list[str] = outcomes) -> None:
            barrier.wait()
            outcomes.append(publish(prepared, store, IDENTITY, progress=PROGRESS).message)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 4
        verify_artefact(published(store), DIGEST)
        assert leftovers(store) == []


# Imports once, then forks for every step number on its standard input and says how the child ended.
KILLED = """
    import os, signal, sys
    from pathlib import Path
    from engine_builder.progress import Progress
    from engine_builder.stages.publish import publish
    from reranker_contracts import PrepareIdentity

    source, store, identity = sys.argv[1:]
    identity = PrepareIdentity.model_validate_json(identity)

    def child(kill_at):
        seen = 0

        def hook(event, arguments):
            # Every system call that changes the store is announced before it happens.
            nonlocal seen
            if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
                return
            if not str(arguments[0]).startswith(store):
                return
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.stdout = open(os.devnull, "w")
        progress = Progress("publish")
        sys.addaudithook(hook)
        publish(Path(source), Path(store), identity, progress=progress)
        os._exit(0)

    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            child(int(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_killed_at_any_step_leaves_nothing_half_published(prepared: Path, store: Path) -> None:
    program = [sys.executable, "-c", textwrap.dedent(KILLED)]
    program += [str(prepared), str(store), IDENTITY.to_json()]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True) as publisher:
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        for step in range(1, 200):
            print(step, file=publisher.stdin, flush=True)
            code = int(publisher.stdout.readline())
            if code == 0:
                break
            assert code == -signal.SIGKILL
            if published(store).exists():
                verify_artefact(published(store), DIGEST)
                shutil.rmtree(published(store))
        else:
            pytest.fail("publish never came to its end")
        publisher.stdin.close()
    assert step > 15, "the hook saw too few steps to be a test"
    verify_artefact(published(store), DIGEST)
    # What the killed ones left is swept once it is old enough, and not before.
    assert leftovers(store)
    for entry in (store / "tmp").rglob("*"):
        os.utime(entry, (0, 0))
    recent, slow = store / "tmp" / ("1a" * 16), store / "tmp" / ("2b" * 16)
    recent.mkdir()
    now = datetime.datetime.now().timestamp()
    slow.mkdir()
    (slow / "model.onnx").touch()
    os.utime(slow, (now - 2 * ABANDONED_AFTER,) * 2)
    # A folder of the claim's owner, who may use this name too.
    (store / "tmp" / "my-training").mkdir()
    os.utime(store / "tmp" / "my-training", (0, 0))
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    assert leftovers(store) == [recent.name, slow.name, "my-training"]


def test_what_others_write_is_swept_by_the_stores_clock_alone(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    pulled = store / "tmp" / ("1a" * 16)
    pulled.mkdir(parents=True)
    ahead = time.time() + 2 * ABANDONED_AFTER
    monkeypatch.setattr(time, "time", lambda: ahead)
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    assert leftovers(store) == [pulled.name]


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own with room for half an artefact."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(mount)],
        check=False,
        capture_output=True,
    )
    if made.returncode != 0:
        pytest.skip("mounting a small filesystem needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_full_store_is_named_and_left_clean(prepared: Path, small_store: Path) -> None:
    with pytest.raises(StageError, match="no space left") as caught:
        publish(prepared, small_store, IDENTITY, progress=PROGRESS)
    assert caught.value.reason is StageReason.STORE_FULL
    assert leftovers(small_store) == []
    (prepared / "model.onnx").write_bytes(b"small enough")
    publish(prepared, small_store, IDENTITY, progress=PROGRESS)


def test_read_only_store_is_named(prepared: Path, small_store: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_store)], check=True)
    with pytest.raises(StageError, match="read-write") as caught:
        publish(prepared, small_store, IDENTITY, progress=PROGRESS)
    assert caught.value.reason is StageReason.STORE_UNWRITABLE


def test_remove_deletes_the_named_and_only_those(prepared: Path, store: Path) -> None:
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    (store / "engines" / DIGEST).mkdir(parents=True)
    (store / "engines" / ("f" * 64)).mkdir()
    outcome = remove(store, [DIGEST, "e" * 64], progress=PROGRESS)
    assert outcome.size_bytes is not None
    assert outcome.size_bytes > 200_000
    assert [entry.name for entry in (store / "engines").iterdir()] == ["f" * 64]
    assert not published(store).exists()
    assert leftovers(store) == []
    assert remove(store, [DIGEST], progress=PROGRESS).size_bytes == 0


NOW = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


def _age(artefact: Path, minutes: int = 1) -> None:
    """As if it had been made so long before NOW."""
    made = (NOW - datetime.timedelta(minutes=minutes)).timestamp()
    for path in (artefact / "manifest.json", artefact):
        if path.exists():
            os.utime(path, (made, made))


def test_publishing_first_deletes_what_is_old_and_not_kept(prepared: Path, store: Path) -> None:
    for letter in "abc":
        folder = store / "engines" / (letter * 64)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(bytes(200_000))
        _age(folder, minutes=-1 if letter == "c" else 1)
    (store / "engines" / "notes").mkdir()
    _age(store / "engines" / "notes")
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    _age(published(store))
    other = IDENTITY.model_copy(update={"revision": "sha256:2"})
    retention = Retention(frozenset({"b" * 64}), NOW)
    done = publish(prepared, store, other, retention=retention, progress=PROGRESS)
    assert "nobody needs" in done.message
    left = {path.name for path in (store / "engines").iterdir()}
    assert left == {"b" * 64, "c" * 64, "notes"}
    assert {path.name for path in (store / "prepared").iterdir()} == {digest_of(other)}
    assert leftovers(store) == []


def test_publishing_over_an_artefact_makes_it_young(prepared: Path, store: Path) -> None:
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    _age(published(store))
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    assert Store(store).tidy(Retention(frozenset(), NOW)) == 0
    verify_artefact(published(store), DIGEST)


def test_an_artefact_published_again_while_it_is_deleted_stays(
    prepared: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    _age(published(store))
    rename = Path.rename

    def beaten(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        publish(prepared, store, IDENTITY, progress=PROGRESS)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", beaten)
    assert Store(store).tidy(Retention(frozenset(), NOW)) == 0
    verify_artefact(published(store), DIGEST)
    assert leftovers(store) == []


def test_an_artefact_deleted_while_it_is_published_again_is_written_anew(
    prepared: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    _age(published(store))

    touch = os.utime

    def beaten(path: Path) -> None:
        if not path.is_relative_to(published(store)):
            return touch(path)
        monkeypatch.undo()
        Store(store).tidy(Retention(frozenset(), NOW))
        raise FileNotFoundError

    # Between the look at the artefact and the touch.
    monkeypatch.setattr(os, "utime", beaten)
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    verify_artefact(published(store), DIGEST)


def test_changed_copy_is_not_installed(prepared: Path, store: Path) -> None:
    """The manifest is of the bytes that were hashed; other bytes never get its name."""
    publish(prepared, store, IDENTITY, progress=PROGRESS)
    manifest = verify_artefact(published(store), DIGEST)
    shutil.rmtree(published(store))
    (prepared / "model.onnx").write_bytes(b"changed since")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        Store(store).publish(prepared, [entry.path for entry in manifest.files], manifest, {})
    assert not published(store).exists()
    assert leftovers(store) == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, StageReason.STORE_FULL),
        (errno.EDQUOT, StageReason.STORE_FULL),
        (errno.EROFS, StageReason.STORE_UNWRITABLE),
        (errno.EACCES, StageReason.STORE_UNWRITABLE),
    ],
)
def test_what_the_filesystem_says_has_its_reason(
    prepared: Path, store: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: StageReason
) -> None:
    """A quota, for one, can't be set up in a test; the system call's answer can."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StageError) as caught:
        publish(prepared, store, IDENTITY, progress=PROGRESS)
    assert caught.value.reason is reason
    assert leftovers(store) == []
    assert not published(store).exists()
