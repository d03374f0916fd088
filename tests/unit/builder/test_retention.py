"""Garbage collection: what is referenced or young is never deleted, what is neither goes."""

import datetime
import os
import random
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from engine_builder.retention import Retention
from engine_builder.store import Store

_Usage = namedtuple("_Usage", "total used free")
_START = 1_700_000_000.0
_HOUR = 3600.0


class Model:
    """The store as it should be: digest → when it was made or needed last."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)  # noqa: S311
        self.made: dict[str, float] = {}
        self.now = _START
        self.deleted = 0

    def add(self) -> str:
        digest = f"{self.random.getrandbits(256):064x}"
        folder = self.root / "engines" / digest
        folder.mkdir()
        (folder / "manifest.json").touch()
        os.utime(folder / "manifest.json", (self.now, self.now))
        self.made[digest] = self.now
        return digest

    def present(self) -> set[str]:
        return {path.name for path in (self.root / "engines").iterdir()}


def test_ten_thousand_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random builds, releases, clocks and disks, each step compared with a model of the rules."""
    engines = tmp_path / "engines"
    engines.mkdir()
    model = Model(tmp_path, seed=7)
    room = 400
    chance = model.random

    def usage(_path: object) -> _Usage:
        used = len(os.listdir(engines))  # noqa: PTH208 - asked for before each removal
        return _Usage(room, used, max(0, room - used))

    def touch(path: Path, times: tuple[float, float] | None = None) -> None:
        utime(path, times or (model.now, model.now))

    utime = os.utime
    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(os, "utime", touch)
    referenced: set[str] = set()
    total = 0
    while total < 10_000:
        model.now += chance.randint(300, 10_000)
        new = {model.add() for _ in range(chance.randint(1, 120))}
        total += len(new)
        referenced |= set(chance.sample(sorted(new), len(new) // 2))
        referenced -= set(chance.sample(sorted(referenced), len(referenced) // 3))
        # The list of a Job that was planned earlier: what came since is protected by its time.
        planned = model.now - chance.choice([0, 0, 1, 5]) * _HOUR
        keep_seconds = chance.choice([0, 0, 6, 48]) * _HOUR
        high_water = chance.choice([0.5, 0.85, 1])
        retention = Retention(
            frozenset(referenced),
            datetime.datetime.fromtimestamp(planned, datetime.UTC),
            keep_seconds,
            high_water,
        )
        before = model.present()
        Store(tmp_path).tidy(retention)
        gone = before - model.present()
        assert not gone & referenced
        assert all(model.made[digest] < planned for digest in gone)
        if keep_seconds:
            for digest in referenced & before:
                model.made[digest] = model.now
        spare = {d for d in before - referenced if model.made[d] < planned}
        expired = {d for d in spare if model.made[d] < planned - keep_seconds}
        assert expired <= gone
        left = len(before) - len(expired)
        wanted = expired | set(_squeezed(model, spare - expired, left, room * high_water))
        assert gone == wanted
        for digest in gone:
            del model.made[digest]
        model.deleted += len(gone)
    assert model.deleted > 5_000
    assert list((tmp_path / "tmp").iterdir()) == []


def _squeezed(model: Model, spare: set[str], left: int, most: float) -> list[str]:
    """The oldest ones, until the disk is filled to less than the mark."""
    order = sorted(spare, key=lambda digest: (model.made[digest], digest))
    count = 0
    while count < len(order) and left - count >= most:
        count += 1
    return order[:count]


def test_time_counts_from_when_it_was_needed_last(tmp_path: Path) -> None:
    folder = tmp_path / "engines" / ("a" * 64)
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
    os.utime(folder / "manifest.json", (0, 0))
    now = datetime.datetime.now(datetime.UTC)
    store, day = Store(tmp_path), 24 * _HOUR
    full = {"keep_seconds": day, "high_water": 1.0}
    store.tidy(Retention(frozenset({folder.name}), now, **full))
    later = now + datetime.timedelta(hours=23)
    store.tidy(Retention(frozenset(), later, **full))
    assert folder.exists()
    store.tidy(Retention(frozenset(), later + datetime.timedelta(hours=2), **full))
    assert not folder.exists()
