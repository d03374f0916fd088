"""`copy-model`, run as in the container of a model image: with a static busybox beside it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine_builder.sources import open_source
from reranker_contracts import Stage, StageReason, StageResult
from reranker_contracts.stages import MESSAGE_LIMIT

ROOT = Path(__file__).resolve().parents[3]


class Copier:
    """The tools folder, and the image as far as it matters: a folder."""

    def __init__(self, folder: Path, busybox: str) -> None:
        self.image = folder / "image"
        self.models = self.image / "models"
        self.models.mkdir(parents=True)
        self.tools = folder / "tools"
        self.tools.mkdir()
        (self.tools / "busybox").symlink_to(busybox)
        script = (ROOT / "engine-builder/copy-model").read_text()
        # Limits that a test can reach.
        script = script.replace("MAX_FILES=10000", "MAX_FILES=50")
        (self.tools / "copy-model").write_text(script.replace("=21474836480", "=1073741824"))
        self.work = folder / "work"
        self.work.mkdir()
        self.copy = self.work / "copy"
        self.result = folder / "result"

    def run(self, path: Path) -> StageResult | None:
        self.result.write_text("")
        command = [self.tools / "busybox", "sh", self.tools / "copy-model", path, self.copy]
        done = subprocess.run(
            command,
            check=False,
            env={"RESULT": str(self.result)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode == 0:
            return None
        assert done.returncode == 1, done.stderr
        data = self.result.read_bytes()
        assert len(data) <= MESSAGE_LIMIT
        return StageResult.model_validate_json(data)


@pytest.fixture
def copier(tmp_path: Path) -> Copier:
    found = shutil.which("busybox") or str(ROOT / ".cluster/bin/busybox")
    if not Path(found).exists():
        pytest.skip("busybox is missing (make cluster brings one, the builder image has one)")
    return Copier(tmp_path, found)


def test_links_are_copied_as_links_and_a_second_run_starts_anew(copier: Copier) -> None:
    (copier.models / "config.json").write_text("{}")
    (copier.models / "inside").symlink_to("config.json")
    (copier.models / "everything").symlink_to("/")
    (copier.models / "zeros").symlink_to("/dev/zero")
    (copier.models / "circle").symlink_to("circle")
    (copier.image / "link").symlink_to("models")
    for path in (copier.models, copier.image / "link"):
        assert copier.run(path) is None
        (copier.copy / "half").mkdir()
    assert copier.run(copier.models) is None
    assert _names(copier.copy) == _names(copier.models)
    assert (copier.copy / "inside").readlink() == Path("config.json")
    assert (copier.copy / "everything").readlink() == Path("/")
    assert _names(copier.work) == ["copy"]


def test_a_snapshot_brings_its_blobs_along(copier: Copier, make_source) -> None:
    source: Path = make_source()
    cache = copier.models / "models--a--b"
    snapshot = cache / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (cache / "snapshots" / "other").mkdir()
    (cache / "blobs").mkdir()
    for entry in source.iterdir():
        shutil.copy(entry, cache / "blobs" / f"of-{entry.name}")
        (snapshot / entry.name).symlink_to(f"../../blobs/of-{entry.name}")
    assert copier.run(snapshot) is None
    scratch = copier.work / "scratch"
    scratch.mkdir()
    found = open_source("oci://x/y", copier.copy).resolve(None, scratch)
    assert found == open_source(str(source), None).resolve(None, scratch)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda models: os.mkfifo(models / 'a"\\\n\u202e'), "is a device, pipe or socket"),
        (lambda models: [(models / str(n)).touch() for n in range(60)], "more than 50 files"),
        (lambda models: [(models / str(n)).mkdir() for n in range(60)], "more than 50 files"),
        (lambda models: [os.truncate(_new(models / n), 600 << 20) for n in "ab"], "1 GiB"),
    ],
    ids=["pipe", "files", "folders", "sparse"],
)
def test_what_could_fill_the_node_is_refused_before_the_copy(copier: Copier, make, says) -> None:
    make(copier.models)
    found = copier.run(copier.models)
    assert found is not None
    assert (found.stage, found.reason) == (Stage.FETCH, StageReason.MODEL_INVALID)
    assert says in found.message
    assert found.message.isprintable()
    assert not _names(copier.work)


def test_paths_that_are_no_models_are_refused(copier: Copier) -> None:
    (copier.image / "root").symlink_to("/")
    for path in (copier.image / "nowhere", copier.tools / "copy-model"):
        found = copier.run(path)
        assert found is not None
        assert found.reason is StageReason.SOURCE_NOT_FOUND
        assert f"there is no folder {path} in the image" in found.message
        assert found.message.endswith("spec.model.source, oci://IMAGE?path=/FOLDER")
    for path in (copier.image / "root", Path("/proc/sys"), copier.tools, copier.work):
        found = copier.run(path)
        assert found is not None
        assert "no model lies" in found.message


def _new(path: Path) -> Path:
    path.touch()
    return path


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
