"""Watches that fail: they are begun anew, and nobody else hears of it."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import kopf
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from support.fake_api import fake_api, status, watch_error
from support.waiting import until

from reranker_operator.runtime.collectors import StreamCollector
from reranker_operator.runtime.streams import Stream, Streams
from reranker_operator.shell import handlers, settings, watching
from reranker_operator.shell.watching import Backoffs, persistent, persistent_watches

PODS = Stream("pods", "shop")
HOW: dict[str, Any] = {"resource": SimpleNamespace(plural="pods"), "namespace": "shop"}


def _rounds(*rounds: tuple[object, ...]) -> Callable[..., AsyncIterator[Any]]:
    """A watch that gives, in each of its rounds, these events, and raises these errors."""
    left: Iterator[tuple[object, ...]] = iter(rounds)

    async def watch(**_: Any) -> AsyncIterator[Any]:
        for event in next(left):
            if isinstance(event, Exception):
                raise event
            yield event

    return watch


async def test_a_watch_that_fails_is_begun_anew_ever_more_slowly() -> None:
    streams, pauses, states = Streams(), [], []
    error = RuntimeError("etcdserver: leader changed")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        states.append(streams.failing)

    watch = persistent(_rounds(("a", error), *[(error,)] * 9, ("b",), ("c",)), streams, sleep)
    found = watch(**HOW)
    assert [await anext(found) for _ in range(3)] == ["a", "b", "c"]
    assert streams.failing == []
    assert states == [[PODS]] * 10 + [[]]
    for pause, expected in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60], strict=True):
        assert 0.75 * expected <= pause <= 1.25 * expected


async def test_credentials_that_are_refused_end_the_process() -> None:
    with pytest.raises(kopf.LoginError):
        await anext(persistent(_rounds((kopf.LoginError("no"),)), Streams())(**HOW))


async def test_one_whose_watch_is_not_wanted_any_more_is_forgotten() -> None:
    streams = Streams()

    async def sleep(_: float) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await anext(persistent(_rounds((ValueError("?"),)), streams, sleep)(**HOW))
    assert streams.failing == []


def test_requests_are_tried_without_an_end() -> None:
    delays = list(itertools.islice(Backoffs(), 1000))
    assert delays[0] < 0.2
    assert max(delays) <= 75
    assert min(delays[20:]) >= 45


def test_it_is_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    streams, registry = Streams(), CollectorRegistry()
    registry.register(StreamCollector(streams))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            streams.failed(PODS, "forbidden")
        streams.failed(Stream("jobs", ""), "gone")
        text = generate_latest(registry).decode()
        streams.works(PODS)
        streams.works(PODS)
    sample = 'reranker_operator_watch_failing{namespace="shop",resource="pods"} 1.0'
    assert sample in text
    assert [record.getMessage() for record in caplog.records] == [
        "changes of pods in shop go unnoticed until they can be watched: forbidden",
        "changes of jobs go unnoticed until they can be watched: gone",
        "changes of pods in shop are noticed again",
    ]


def _trouble(plural: str, namespace: str | None, watch: bool) -> web.Response | None:
    """One namespace is gone, one definition, and the watch of Jobs has bad luck."""
    if namespace == "gone":
        return status(403, f"{plural} is forbidden")
    if plural == "servicemonitors":
        return status(404, "the server could not find the requested resource")
    if plural == "jobs" and watch:
        return watch_error(500, "etcdserver: leader changed")
    if plural == "pods" and watch:
        return status(410, "too old resource version")
    return None


async def test_kopf_goes_on_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(watching, "_FIRST_DELAY", 0.01)
    seen: list[str] = []
    registry, streams = kopf.OperatorRegistry(), Streams()
    handlers.register(registry, lambda kind, event, body: seen.append(body["metadata"]["name"]))

    async with fake_api(_trouble) as api:
        monkeypatch.setattr(
            kopf, "login_with_service_account", lambda **_: kopf.ConnectionInfo(server=api.url)
        )
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=settings.configure(namespaced=True),
            standalone=True,
            identity="me",  # type: ignore[arg-type]
            namespaces=["shop", "gone"],
        )
        with persistent_watches(streams):
            running = asyncio.create_task(kopf.run_tasks(tasks, ignored=ours))
            await until(lambda: Stream("services", "gone") in streams.failing)
            await until(lambda: Stream("servicemonitors", "shop") in streams.failing)
            for plural in ("jobs", "pods"):
                await until(lambda one=plural: api.asked.count((one, "shop", False)) >= 3)
            assert {entry.namespace for entry in streams.failing} == {"shop", "gone"}
            api.send("deployments", "shop", "ADDED", {"metadata": {"name": "there", "uid": "1"}})
            await until(lambda: seen == ["there"])
            api.trouble = lambda *_: None
            api.send("jobs", "gone", "ADDED", {"metadata": {"name": "back", "uid": "2"}})
            await until(lambda: seen == ["there", "back"])
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
