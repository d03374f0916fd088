"""What a publish may delete from a store that is all ours."""

import datetime

import pytest

from reranker_contracts import digest_of
from reranker_operator.api.engine import StoreSpec
from reranker_operator.api.v1alpha1 import RerankerEngine
from reranker_operator.core import store
from reranker_operator.core.world import EngineWorld, Sibling
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.jobs import prepare_job
from reranker_operator.runtime.reading import sibling


@pytest.fixture
def world(engine: RerankerEngine, now: datetime.datetime, defaults: Defaults) -> EngineWorld:
    return EngineWorld(engine, now, defaults)


def _other(engine: RerankerEngine, number: int, **spec: object) -> RerankerEngine:
    changes: dict[str, object] = {"digest": f"{number:064x}"} | spec
    return engine.model_copy(update={"spec": engine.spec.model_copy(update=changes)})


def _sibling(engine: RerankerEngine) -> Sibling:
    raw = engine.to_dict()
    found = sibling(raw)
    assert found is not None
    return found


def test_files_of_living_engines_of_the_same_store_are_kept(
    world: EngineWorld, now: datetime.datetime, defaults: Defaults
) -> None:
    engine = world.engine
    leaving = engine.metadata.model_copy(update={"deletion_timestamp": now})
    siblings = (
        _sibling(_other(engine, 1)),
        _sibling(_other(engine, 2, store=StoreSpec(storage_class_name="fast"))),
        _sibling(_other(engine, 3).model_copy(update={"metadata": leaving})),
    )
    found = store.retention(EngineWorld(engine, now, defaults, siblings=siblings))
    assert found is not None
    wanted = {engine.spec.digest, digest_of(engine.spec.prepare), f"{1:064x}"}
    assert (set(found.keep), found.made_before) == (wanted, now)
    job = prepare_job(engine, 1, defaults, found)
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    at = arguments.index("--keep")
    assert set(arguments[at + 1 : at + 4]) == wanted
    assert arguments[at + 4 : at + 10] == [
        *("--made-before", "2026-01-05T12:00:00+00:00"),
        *("--keep-hours", "0", "--high-water", "85"),
    ]


def test_nothing_is_deleted_where_not_all_users_are_known(
    world: EngineWorld, now: datetime.datetime, defaults: Defaults
) -> None:
    engine = world.engine
    mine = _other(engine, 1, store=StoreSpec(existing_claim="mine"))
    many = tuple(_sibling(_other(engine, number)) for number in range(store.MOST_KEPT))
    assert store.retention(world) is not None
    assert store.retention(EngineWorld(mine, now, defaults)) is None
    assert store.retention(EngineWorld(engine, now, defaults, all_siblings=False)) is None
    assert store.retention(EngineWorld(engine, now, defaults, siblings=many)) is None
