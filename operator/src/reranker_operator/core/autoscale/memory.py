"""What one decision leaves to the next."""

from dataclasses import dataclass, replace

from reranker_operator.core.past import past


@dataclass(frozen=True)
class Need:
    """Pods that were needed, and when they were needed last."""

    replicas: int
    time: float


@dataclass(frozen=True)
class Memory:
    """What the next decision builds on; times in whole seconds since the epoch."""

    desired: int | None = None
    speed: float | None = None
    measured_on: str | None = None
    start_seconds: float | None = None
    changed: float | None = None
    period_from: int | None = None
    period: float | None = None
    recent: tuple[Need, ...] = ()
    idle_since: float | None = None
    #: Since when nobody can see whether requests are held, while there are no pods.
    blind_since: float | None = None

    def until(self, now: float) -> "Memory":
        """With nothing that is still to come."""
        return replace(
            self,
            changed=past(self.changed, now),
            period=past(self.period, now),
            recent=tuple(Need(need.replicas, min(need.time, now)) for need in self.recent),
            idle_since=past(self.idle_since, now),
            blind_since=past(self.blind_since, now),
        )
