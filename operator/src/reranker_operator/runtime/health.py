"""What the probes say: facts of our own, not only that the process runs."""

from collections.abc import Callable
from dataclasses import dataclass

from reranker_operator.runtime.lag import LoopLag
from reranker_operator.runtime.queue import WorkQueue
from reranker_operator.runtime.resync import Resync

#: Keys that nobody takes for so long mean that the workers hang.
_STALLED_SECONDS = 600.0
#: All calls of a reconcile have a time limit; together they are far below this.
_WORK_SECONDS = 1800.0
_LAG_SECONDS = 30.0


@dataclass
class Health:
    """`lease_seen` is when the Lease was last read; without an election there is none."""

    queue: WorkQueue
    resync: Resync
    lag: LoopLag
    clock: Callable[[], float]
    lease_seconds: float
    lease_seen: Callable[[], float | None] | None = None
    leading_since: float | None = None

    @property
    def leading(self) -> bool:
        """Whether this replica is the one that works."""
        return self.leading_since is not None

    def begin_to_lead(self) -> None:
        """This replica has the Lease."""
        self.leading_since = self.clock()

    def stop_leading(self) -> None:
        """What this replica knows is no longer the truth."""
        self.leading_since = None

    def problem(self) -> str | None:
        """Why the process should be restarted, or None."""
        if (lag := self.lag.now()) > _LAG_SECONDS:
            return f"the event loop is {lag:.0f} s late"
        if self.leading_since is None:
            return None
        last = self.resync.last_finished
        since = self.clock() - (self.leading_since if last is None else last)
        if since > 3 * self.resync.seconds:
            return f"no resync has finished for {since:.0f} s"
        if (stalled := self.queue.stalled()) > _STALLED_SECONDS:
            return f"no key was worked on for {stalled:.0f} s"
        if (work := self.queue.longest_work()) > _WORK_SECONDS:
            return f"a worker has been on the same key for {work:.0f} s"
        return None

    def unready(self) -> str | None:
        """What has to happen before this replica can be counted on, or None."""
        if self.leading_since is not None:
            if self.resync.last_finished is None:
                return "leader: the first list is not there yet"
            return None if self.queue.worked_off else "leader: the first list is being worked off"
        seen = self.lease_seen() if self.lease_seen else None
        if seen is None or self.clock() - seen > 2 * self.lease_seconds:
            return "standby: the Lease can't be read"
        return None
