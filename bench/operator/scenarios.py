"""What is measured: each method gives some rows of the table in report.py."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import fixtures
from api import Json, in_parallel
from control_plane import ControlPlane
from drift import DRIFT, deployments_of
from hanging import hanging_webhook
from process import OperatorProcess

from reranker_operator import names

_LIMIT_SECONDS = 600
_STEADY_SECONDS = 60
_SAMPLES = 40
_OUTAGE_SECONDS = 120


@dataclass
class Results:
    """Figures by name; None where nothing was measured."""

    values: dict[str, float | None] = field(default_factory=dict)

    def note(self, name: str, value: float | None) -> None:
        self.values[name] = None if value is None else round(value, 3)


class Bench:
    """One operator on one control plane."""

    def __init__(
        self,
        plane: ControlPlane,
        operator: OperatorProcess,
        spaces: list[str],
        models: int,
        results: Results,
    ) -> None:
        self.plane, self.api = plane, plane.api
        self.operator = operator
        self.results = results
        self._spaces = spaces
        self._models = models
        self._services: list[tuple[str, str]] = []

    async def apply(self, count: int) -> None:
        """Apply so many services and wait until all are ready and the operator is calm."""
        share = -(-count // len(self._spaces))
        places = itertools.product(range(share), self._spaces)
        self._services = [(space, f"rank-{n:03}") for n, space in itertools.islice(places, count)]
        bodies = [
            fixtures.service(space, name, number % self._models)
            for number, (space, name) in enumerate(self._services)
        ]
        cpu, calls, began = self.operator.cpu(), await self.operator.calls(), time.monotonic()
        counted = asyncio.create_task(self._count_deployments(count, began))
        ready = asyncio.create_task(self._count_ready(count, began))
        await in_parallel(partial(self.api.create, "rerankerservices", body) for body in bodies)
        async with asyncio.timeout(_LIMIT_SECONDS):
            self.results.note("applied_deployments_seconds", await counted)
            self.results.note("applied_ready_seconds", await ready)
        made = (await self.operator.calls()).since(calls)
        await self.operator.until_calm(_LIMIT_SECONDS)
        self.results.note("apply_cpu_seconds", self.operator.cpu() - cpu)
        self.results.note("rss_peak_mib", self.operator.memory(peak=True))
        self.results.note("rss_settled_mib", self.operator.memory())
        self.results.note("writes_per_service", made.writes / count)
        self.results.note("events_per_service", made.events / count)
        self.results.note("reads_per_service", made.reads / count)

    async def _count_deployments(self, count: int, began: float) -> float:
        seen = set()
        async for event in self.api.watch("deployments"):
            seen.add(event["object"]["metadata"]["uid"])
            if len(seen) >= count:
                return time.monotonic() - began
        raise RuntimeError("the watch has ended")

    async def _count_ready(self, count: int, began: float) -> float:
        ready: set[str] = set()
        async for event in self.api.watch("rerankerservices"):
            if _is_ready(event["object"]):
                ready.add(event["object"]["metadata"]["uid"])
            if len(ready) >= count:
                return time.monotonic() - began
        raise RuntimeError("the watch has ended")

    async def steady(self) -> None:
        """Nothing happens: nothing may be written, and little used."""
        cpu, calls, began = self.operator.cpu(), await self.operator.calls(), time.monotonic()
        await asyncio.sleep(_STEADY_SECONDS)
        made = (await self.operator.calls()).since(calls)
        self.results.note("steady_writes", made.writes + made.events)
        share = (self.operator.cpu() - cpu) / (time.monotonic() - began)
        self.results.note("steady_cpu_percent", 100 * share)

    async def changes(self, name: str) -> None:
        """From a change of `replicas` to the change of the Deployment."""
        taken = [await self._scale(place) for place in self._services[:_SAMPLES]]
        self.results.note(name, _percentile(taken, 95))

    async def changes_beside_one_that_hangs(self) -> None:
        """The same while a webhook takes one service's writes and never says a word."""
        space, name = self._services[-1]
        with hanging_webhook(space, name) as hook:
            await self.api.create("validatingwebhookconfigurations", hook)
            try:
                await self._edit((space, name), {"serving": {"maxPassages": 100}})
                await self.changes("change_beside_hanging_p95_seconds")
            finally:
                await self.api.delete(
                    "validatingwebhookconfigurations", None, hook["metadata"]["name"]
                )
        await self.operator.until_calm(_LIMIT_SECONDS)

    async def bad_api_server(self) -> None:
        """For two minutes no answer but 429, 500 or none at all; meanwhile specs change.

        How long until all is as wanted, once the API server is well again.
        """
        self.operator.stop()
        with self.plane.proxy() as proxy:
            self.operator.start(proxy.kubeconfig(self.plane.logs))
            await self.operator.until_calm(_LIMIT_SECONDS)
            restarts = asyncio.create_task(self.operator.keep_running())
            answers: Iterator[int | str] = itertools.cycle((429, 500, "hang"))
            proxy.fault = lambda _: next(answers)
            began, wanted = time.monotonic(), {}
            for number, place in enumerate(itertools.cycle(self._services[:_SAMPLES])):
                if time.monotonic() > began + _OUTAGE_SECONDS:
                    break
                wanted[place] = 1 + number % 3
                await self._edit(place, {"replicas": wanted[place]})
                await asyncio.sleep(_OUTAGE_SECONDS / 2 / _SAMPLES)
            proxy.fault = lambda _: None
            ended = time.monotonic()
            for place, replicas in wanted.items():
                await self._until(partial(self._has_replicas, place, replicas))
            self.results.note("outage_caught_up_seconds", time.monotonic() - ended)
            await self.operator.until_calm(_LIMIT_SECONDS)
            restarts.cancel()
            self.operator.stop()
        self.operator.start()
        await self.operator.until_calm(_LIMIT_SECONDS)

    async def _has_replicas(self, place: tuple[str, str], wanted: int) -> bool:
        found = await deployments_of(self.api, place)
        return [entry["spec"]["replicas"] for entry in found] == [wanted]

    async def _edit(self, place: tuple[str, str], spec: Json) -> None:
        meta = {"namespace": place[0], "name": place[1]}
        await self.api.patch("rerankerservices", {"metadata": meta, "spec": spec})

    async def _scale(self, place: tuple[str, str]) -> float:
        space, service = place
        live = await self.api.need("rerankerservices", space, service)
        wanted = 2 if live["spec"]["replicas"] == 1 else 1
        seen = asyncio.create_task(self._wait_for_replicas(place, wanted))
        await asyncio.sleep(0.2)  # the watch is open then
        began = time.monotonic()
        await self._edit(place, {"replicas": wanted})
        return await seen - began

    async def _wait_for_replicas(self, place: tuple[str, str], wanted: int) -> float:
        async with asyncio.timeout(_LIMIT_SECONDS):
            async for event in self.api.watch("deployments"):
                meta, spec = event["object"]["metadata"], event["object"]["spec"]
                here = (meta["namespace"], meta["labels"].get(names.SERVICE_LABEL)) == place
                if here and spec["replicas"] == wanted:
                    return time.monotonic()
        raise RuntimeError("the watch has ended")

    async def changes_beside_the_unready(self) -> None:
        """The same while all others are not ready: their pods stop answering."""
        chosen = set(self._services[:_SAMPLES])
        pods = await self.api.list("pods", selector=names.MANAGED_SELECTOR)
        others = [pod for pod in pods if _place(pod) not in chosen]
        await in_parallel(partial(self._answer, pod, "False") for pod in others)
        await self.operator.until_calm(_LIMIT_SECONDS)
        await self.changes("change_beside_unready_p95_seconds")
        await in_parallel(partial(self._answer, pod, "True") for pod in others)
        await self.operator.until_calm(_LIMIT_SECONDS)

    async def silent_pods(self) -> None:
        """From the readiness probe's verdict to `Ready: False`; the probe itself takes 4 s more."""
        taken = []
        for space, name in self._services[-5:]:
            pods = await self.api.list("pods", space, f"{names.SERVICE_LABEL}={name}")
            began = time.monotonic()
            for pod in pods:
                await self._answer(pod, "False")
            await self._until(partial(self._is_unready, space, name))
            taken.append(time.monotonic() - began)
            for pod in pods:
                await self._answer(pod, "True")
        self.results.note("silent_pods_seconds", max(taken) + 4)

    async def _is_unready(self, space: str, name: str) -> bool:
        live = await self.api.get("rerankerservices", space, name)
        return live is not None and not _is_ready(live)

    async def _answer(self, pod: Json, status: str) -> None:
        conditions = [{"type": kind, "status": status} for kind in ("Ready", "ContainersReady")]
        meta = {"namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"]}
        body = {"metadata": meta, "status": {"conditions": conditions}}
        await self.api.patch("pods", body, subresource="/status")

    async def restart(self) -> None:
        """A new process finds all in order: it writes nothing, tells nothing, restarts nothing."""
        before = {
            pod["metadata"]["uid"]
            for pod in await self.api.list("pods", selector=names.MANAGED_SELECTOR)
        }
        self.operator.stop()
        began = time.monotonic()
        self.operator.start()
        await self.operator.until_calm(_LIMIT_SECONDS)
        self.results.note("restart_calm_seconds", time.monotonic() - began - 1)
        calls = await self.operator.calls()
        self.results.note("restart_writes", calls.writes)
        self.results.note("restart_events", calls.events)
        after = {
            pod["metadata"]["uid"]
            for pod in await self.api.list("pods", selector=names.MANAGED_SELECTOR)
        }
        self.results.note("restart_pods_replaced", len(before - after))

    async def _pods(self) -> set[str]:
        pods = await self.api.list("pods", selector=names.MANAGED_SELECTOR)
        return {pod["metadata"]["uid"] for pod in pods}

    async def drift(self) -> None:
        """Each of eight changes by somebody else, at several services: is it undone, how soon?"""
        taken: list[float] = []
        repaired = 0
        for change, is_undone in DRIFT:
            times = []
            for place in self._services[:_SAMPLES:4]:
                began = time.monotonic()
                await change(self.api, place)
                try:
                    await self._until(partial(is_undone, self.api, place), 30)
                except TimeoutError:
                    continue
                times.append(time.monotonic() - began)
            repaired += len(times) == len(self._services[:_SAMPLES:4])
            taken += times
        self.results.note("drift_repaired", repaired)
        self.results.note("drift_p99_seconds", _percentile(taken, 99) if taken else None)
        await self.operator.until_calm(_LIMIT_SECONDS)

    async def delete(self) -> None:
        """All services at once; then all that was theirs is gone."""
        began = time.monotonic()
        for space in self._spaces:
            await self.api.delete("rerankerservices", space)
        for plural in ("rerankerservices", "deployments", "replicasets", "pods", "services"):
            await self._until(partial(self._is_gone, plural))
        self.results.note("deleted_seconds", time.monotonic() - began)

    async def _is_gone(self, plural: str) -> bool:
        own = "" if plural == "rerankerservices" else names.MANAGED_SELECTOR
        return not await self.api.list(plural, selector=own)

    async def _until(
        self, ask: Callable[[], Awaitable[bool]], seconds: float = _LIMIT_SECONDS
    ) -> None:
        async with asyncio.timeout(seconds):
            while not await ask():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)


def _place(entry: Json) -> tuple[str, str]:
    meta = entry["metadata"]
    return meta["namespace"], meta.get("labels", {}).get(names.SERVICE_LABEL, "")


def _is_ready(service: Json) -> bool:
    status = service.get("status", {})
    current = status.get("observedGeneration") == service["metadata"]["generation"]
    return current and any(
        entry["type"] == "Ready" and entry["status"] == "True"
        for entry in status.get("conditions", [])
    )


def _percentile(values: list[float], of: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[of - 1]
