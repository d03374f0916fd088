"""Puts the parts together and runs them until a signal or the loss of the Lease."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
from typing import Any

import kopf
from kubernetes.aio import config as kubeconfig
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import disable_created_metrics
from pydantic import ValidationError

from reranker_operator import __version__, logs, names
from reranker_operator.adapters.cache import CachingCluster
from reranker_operator.adapters.kubernetes import KubernetesCluster
from reranker_operator.adapters.metadata import KubernetesMetadata
from reranker_operator.adapters.observed_client import ObservedApiClient
from reranker_operator.adapters.scrape import Scraper
from reranker_operator.api.meta import OWNED, RERANKER_ENGINE, RERANKER_SERVICE, Resource
from reranker_operator.config import Config
from reranker_operator.runtime.collectors import (
    FleetCollector,
    LoadCollector,
    ReplicaCollector,
    StreamCollector,
)
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.health import Health
from reranker_operator.runtime.lag import LoopLag
from reranker_operator.runtime.leader import Leader
from reranker_operator.runtime.loads import Loads
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.optional_kinds import OptionalKinds
from reranker_operator.runtime.queue import WorkQueue
from reranker_operator.runtime.reconciler import Reconciler
from reranker_operator.runtime.references import References
from reranker_operator.runtime.resync import Resync
from reranker_operator.runtime.streams import Streams
from reranker_operator.runtime.watch import Watch
from reranker_operator.runtime.worker import Workers
from reranker_operator.shell import handlers, server, settings, watching

logger = logging.getLogger(__name__)

#: Seconds for kopf and the workers to end; with the Lease it is less than ten in all.
_STOP_SECONDS = 6.0


class Operator:
    """One replica."""

    def __init__(
        self, config: Config, metrics: Metrics, client: ApiClient, streams: ApiClient
    ) -> None:
        leader = _leader(config, client)
        live = KubernetesCluster(client, leader.holds) if leader else KubernetesCluster(client)
        labels = {names.APP_MANAGED_BY: names.MANAGER}
        own: dict[Resource, dict[str, str] | None] = {RERANKER_SERVICE: None, RERANKER_ENGINE: None}
        cluster = CachingCluster(live, own | dict.fromkeys(OWNED, labels))
        self._config = config
        self._live, self._cluster = live, cluster
        self._queue = WorkQueue()
        self._metrics = metrics
        self._fleet = Fleet()
        self._streams = Streams()
        self._lag = LoopLag()
        self._leader = leader
        kinds = OptionalKinds(live)
        self._watcher = Watch(
            cluster, self._queue, self._fleet, handlers.keys_of, config.namespaces
        )
        self._resync = Resync(
            cluster,
            self._queue,
            self._fleet,
            config.namespaces,
            seconds=config.resync_seconds,
            missed=self._watcher.missed,
            kinds=kinds,
        )
        self._references = References(
            KubernetesMetadata(streams),
            self._queue.add,
            kinds=config.watch_references,
            namespaces=config.namespaces,
        )
        self._scraper = Scraper(config.scrape_deadline_seconds, time.time)
        self._loads = Loads(
            self._scraper,
            self._queue.add,
            metrics,
            paces={"steady": config.scrape_seconds, "asleep": config.scrape_sleeping_seconds},
            at_once=config.scrape_at_once,
        )
        reconciler = Reconciler(
            cluster,
            config.defaults(),
            identity=config.identity,
            read_nodes=config.read_nodes,
            kinds=kinds,
            references=self._references,
            loads=self._loads,
        )
        self._workers = Workers(
            self._queue, reconciler.reconcile, self._metrics, count=config.workers
        )
        self._health = Health(
            self._queue,
            self._resync,
            self._lag,
            clock=lambda: asyncio.get_running_loop().time(),
            lease_seconds=config.lease_seconds,
            lease_seen=leader.lease_seen if leader else None,
        )
        self._stopped = asyncio.Event()
        self._failed = False

    async def run(self) -> int:
        """Until a signal (0), the loss of the Lease or the end of a part that never ends (1)."""
        self._take_signals()
        registry, leader = self._metrics.registry, self._leader
        registry.register(ReplicaCollector(self._health))
        registry.register(FleetCollector(self._fleet, self._health))
        registry.register(LoadCollector(self._loads))
        registry.register(StreamCollector(self._streams))
        runner = await server.serve(self._health, registry, self._config.http_port)
        scaler = await self._answer_keda()
        lag = asyncio.create_task(self._lag.run())
        work = asyncio.create_task(leader.run(self._lead) if leader else self._lead())
        stop = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        lost = work.done()
        if lost and (error := work.exception()) is not None:
            logger.error("stopping: %s", error, exc_info=error)
        logger.info("stopping")
        self._queue.close()
        for task in (work, stop, lag):
            task.cancel()
        # Nothing that hangs may keep the Lease from being given back.
        await asyncio.wait({work, stop, lag}, timeout=_STOP_SECONDS)
        if leader is not None:
            await leader.release()
        if scaler is not None:
            await scaler.stop(None)
        await self._scraper.close()
        await runner.cleanup()
        return 1 if lost or self._failed else 0

    async def _answer_keda(self) -> Any:
        """Every replica does, where it is asked for."""
        if self._config.scaler_port is None:
            return None
        # Only then: it takes memory.
        from reranker_operator.shell import scaler  # noqa: PLC0415

        # Only the leader's memory is kept right.
        asked = scaler.Scaler(
            lambda: self._cluster if self._health.leading else self._live, self._loads, time.time
        )
        return await scaler.serve(asked, self._config.scaler_port)

    async def _lead(self) -> None:
        """The work of the leader. Its end, for whatever reason, ends the process."""
        logger.info("leading")
        self._health.begin_to_lead()
        # Before kopf, which cancels every task that was created after it started.
        parts = {
            "workers": self._work(),
            "resync": self._resync.run(),
            "lists after cuts": self._watcher.run(),
            "loads": self._loads.run(),
        }
        if self._config.watch_references:
            parts["references"] = self._references.run()
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(self._watch(), name="watches"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._ended(task)
        finally:
            # The Lease is lost, if nobody wants us to stop and no part has ended. Said here, since
            # kopf kills the process that it ends in without being told.
            self._failed |= not self._stopped.is_set()
            self._stopped.set()
            self._health.stop_leading()
            self._queue.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, part: "asyncio.Task[Any]") -> None:
        """Unless somebody wants us to stop, no part ends: without it nothing good would go on."""
        if self._stopped.is_set():
            return
        error = None if part.cancelled() else part.exception()
        logger.error("stopping: the part %r has ended", part.get_name(), exc_info=error)
        self._failed = True
        # Not only when all has ended: nothing that hangs may keep the process from its end.
        self._stopped.set()

    async def _work(self) -> None:
        await self._resync.tried.wait()
        await self._workers.run()

    async def _watch(self) -> None:
        registry = kopf.OperatorRegistry()
        handlers.register(registry, self._watcher.saw)
        namespaces = self._config.namespaces
        # Without them kopf cancels every task there is when it ends.
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=settings.configure(namespaced=bool(namespaces)),
            standalone=True,
            # Else kopf looks for a user name, and the image has none for its uid.
            identity=self._config.identity,  # type: ignore[arg-type]
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._stopped,
        )
        # kopf has just taken them, and would end first, as if it had failed.
        self._take_signals()
        for task in tasks:
            # At once: kopf waits for what is under way, and then kills the process, after seconds
            # that giving the Lease back needs.
            task.add_done_callback(self._ended)
        with watching.persistent_watches(self._streams):
            await kopf.run_tasks(tasks, ignored=ours)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)


def _leader(config: Config, client: ApiClient) -> Leader | None:
    if not config.leader_election:
        return None
    return Leader(
        client,
        name=config.lease_name,
        namespace=config.lease_namespace,
        identity=config.identity,
        seconds=config.lease_seconds,
    )


async def _run(config: Config) -> int:
    try:
        kubeconfig.load_incluster_config()  # type: ignore[no-untyped-call]
    except kubeconfig.ConfigException:
        await kubeconfig.load_kube_config()  # type: ignore[no-untyped-call]
    # Without them a counter and a histogram would have a series more each, which nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = Metrics()
    # Watches hold their connections: one for each kind and namespace, however many those are.
    endless = Configuration.get_default_copy()
    endless.connection_pool_maxsize = 0
    async with (
        ObservedApiClient(metrics.api_call) as client,
        ObservedApiClient(metrics.api_call, endless) as streams,
    ):
        return await Operator(config, metrics, client, streams).run()


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog="reranker-operator",
        description="Kubernetes operator for reranker deployments. Settings are environment "
        "variables with the prefix RERANKER_OPERATOR_, for example RERANKER_OPERATOR_WORKERS=8.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--settings", action="store_true", help="print every setting with its default and exit"
    )
    arguments = parser.parse_args()
    if arguments.settings:
        for name, field in Config.model_fields.items():
            default = field.default if field.default not in ((), None) else ""
            text = field.description or ""
            sys.stdout.write(f"RERANKER_OPERATOR_{name.upper()}={default}  {text}\n")
        return
    try:
        config = Config()
    except ValidationError as error:
        for entry in error.errors():
            name = f"RERANKER_OPERATOR_{str(entry['loc'][0]).upper()}"
            sys.stderr.write(f"{name}={entry['input']!r}: {entry['msg']}\n")
        raise SystemExit(2) from None
    logs.configure(config.log_level, config.log_format)
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(asyncio.run(_run(config)))


if __name__ == "__main__":
    main()
