"""One writer among the replicas: a Lease, and the process ends when it is lost.

A restart is the cleanest way to forget everything that a former leader knew. On a graceful exit
the Lease is given back, so that the other replica takes over at once.

How long somebody else's Lease is still good is counted as client-go does: from when this process
saw it change, by its own clock that never steps. The library counts by the wall clock; one step of
it, and two would lead.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from kubernetes.aio.client import CoordinationV1Api, V1Lease, V1ObjectMeta
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config as ElectionConfig
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

logger = logging.getLogger(__name__)

_RELEASE_SECONDS = 2.0


class _PatientLock(LeaseLock):
    """A lost connection is a failed attempt; the library would let it end the process.

    Times are those of the event loop's clock, which goes on while the process is frozen.
    """

    #: When the Lease was last read.
    seen: float | None = None
    #: When the last attempt began that made or kept the Lease ours; others count from its end.
    renewed: float | None = None
    #: What the Lease said, and when it was first seen to say so.
    _record: LeaderElectionRecord | None = None
    _changed: float | None = None

    def __init__(
        self,
        name: str,
        namespace: str,
        identity: str,
        client: ApiClient,
        *,
        seconds: float,
        patience: float,
    ) -> None:
        super().__init__(name, namespace, identity, client)
        self._seconds = seconds
        self._patience = patience
        self.deposed = asyncio.Event()

    def age(self) -> float:
        """Seconds since the Lease was seen to change."""
        return 0.0 if self._changed is None else _now() - self._changed

    def _may_be_taken(self) -> bool:
        holder = self._record.holder_identity if self._record else None
        return holder in (None, self.identity) or self.age() >= self._seconds

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        try:
            async with asyncio.timeout(self._patience):
                answer = await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError) as error:
            return False, ApiException(status=0, reason=type(error).__name__)
        found, record = answer
        if found:
            self.seen = _now()
        if not isinstance(record, LeaderElectionRecord):
            return answer
        if self._record is None or vars(record) != vars(self._record):
            self._record, self._changed = record, _now()
        holder = record.holder_identity
        if self.renewed is not None and holder not in (None, self.identity):
            # The library would go on until its deadline to renew.
            self.deposed.set()
        return answer

    async def create(
        self, name: str, namespace: str, election_record: LeaderElectionRecord
    ) -> bool:
        # Not the inherited one: in kubernetes 37.0 it passes `pretty=True`, which its own
        # validation refuses.
        lease = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        began = _now()
        try:
            async with asyncio.timeout(self._patience):
                await self.api_instance.create_namespaced_lease(namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError):
            return False
        self.renewed = began
        return True

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        if not self._may_be_taken():
            return False
        began = _now()
        try:
            async with asyncio.timeout(self._patience):
                updated = await super().update(name, namespace, updated_record)
        except (aiohttp.ClientError, TimeoutError):
            return False
        if updated:
            self.renewed = began
        return updated


class _SteadyElection(LeaderElection):
    """Goes by the lock's clock, not by the wall's."""

    def __init__(self, config: ElectionConfig, lock: _PatientLock) -> None:
        super().__init__(config)
        self._lock = lock

    async def try_acquire_or_renew(self) -> bool:
        # The library subtracts this from the time of day, which it reads right after this. Should
        # that step while it waits for an answer, the lock says no.
        self.observed_time_milliseconds = int((time.time() - self._lock.age()) * 1000)
        return await super().try_acquire_or_renew()

    async def renew_loop(self) -> None:
        pause, patience = self.election_config.retry_period, self.election_config.renew_deadline
        until = _now() + patience
        while _now() < until:
            if await self.try_acquire_or_renew():
                until = _now() + pause + patience
            await asyncio.sleep(pause)


class Leader:
    """Runs `lead` while this replica holds the Lease."""

    def __init__(
        self, client: ApiClient, *, name: str, namespace: str, identity: str, seconds: int
    ) -> None:
        self._client = client
        self._name, self._namespace, self._identity = name, namespace, identity
        self._seconds = seconds
        self._renew_deadline = seconds * 2 // 3
        # A call that hangs must leave time for another try.
        self._lock = _PatientLock(
            name,
            namespace,
            identity,
            client,
            seconds=seconds,
            patience=self._renew_deadline / 3,
        )

    def lease_seen(self) -> float | None:
        """When the Lease was last read, on the event loop's clock; None: never."""
        return self._lock.seen

    def holds(self) -> bool:
        """Whether nobody else can have the Lease yet, however long this process was frozen.

        It turns false a third of the Lease's time before others may take it: what was sent by then
        has that long to arrive.
        """
        renewed = self._lock.renewed
        return renewed is not None and _now() - renewed < self._renew_deadline

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the Lease, lead, return when it is lost."""
        leading: list[asyncio.Task[None]] = []

        async def start() -> None:
            leading.append(asyncio.create_task(lead()))

        config = ElectionConfig(
            lock=self._lock,
            lease_duration=self._seconds,
            renew_deadline=self._renew_deadline,
            retry_period=max(1, self._seconds // 7),
            onstarted_leading=start,
            onstopped_leading=_nothing,
        )
        election = asyncio.create_task(_SteadyElection(config, self._lock).run())
        deposed = asyncio.create_task(self._lock.deposed.wait())
        try:
            await asyncio.wait({election, deposed}, return_when=asyncio.FIRST_COMPLETED)
            logger.error("the Lease was lost; this replica stops")
        finally:
            for task in (election, deposed, *leading):
                task.cancel()
            await asyncio.gather(election, deposed, *leading, return_exceptions=True)

    async def release(self) -> None:
        """Give the Lease back if it is ours; at the end nobody waits long for the API server."""
        # What is still under way, if anything, must not write any more.
        self._lock.renewed = None
        api = CoordinationV1Api(self._client)
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                lease = await api.read_namespaced_lease(self._name, self._namespace)
                if lease.spec is None or lease.spec.holder_identity != self._identity:
                    return
                lease.spec.holder_identity = None
                await api.replace_namespaced_lease(self._name, self._namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            logger.warning("the Lease could not be given back: %s", reason)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _nothing() -> None:
    """The end of the election is told by its return."""
