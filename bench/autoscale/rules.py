"""Ours, by the operator's own function, and three others as their authors wrote them down."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from simulate import Pod, Service

from reranker_operator.api.autoscaling import AutoscalingSpec, AutoscalingStatus
from reranker_operator.core.autoscale.decide import decide
from reranker_operator.core.autoscale.measure import PodView, see
from reranker_operator.core.autoscale.record import memory_of, status_of

LEAST, MOST = 1, 40


def _bounded(number: int) -> int:
    return min(max(number, LEAST), MOST)


class Ours:
    """`spec.autoscaling` with its defaults. Nothing but its status is remembered."""

    idlest_first = True

    def __init__(self, name: str = "ours", **settings: float) -> None:
        self.name = name
        self.rules = AutoscalingSpec.model_validate({"min": LEAST, "max": MOST, **settings})
        self.status: AutoscalingStatus | None = None
        self.writes = 0

    def wish(self, now: int, service: Service) -> int:
        """Every two seconds, after the scrape."""
        if now % 2:
            return service.wanted
        pods = [
            PodView(pod.name, pod.ready_at <= now, pod.created, min(pod.ready_at, now))
            for pod in service.staying()
        ]
        seen = see(
            pods,
            [pod.load() for pod in service.ready(now)],
            now,
            start_timeout=self.rules.start_timeout_seconds,
            revision="r1",
        )
        decision = decide(self.rules, seen, memory_of(self.status), begin=service.wanted)
        status = status_of(decision, self.status)
        self.writes += status is not self.status
        self.status = status
        return status.desired


class KubeAi:
    """Requests in progress, looked at every 10 s, their mean over 10 minutes by a target."""

    idlest_first = False

    def __init__(self, target: float) -> None:
        self.name = f"KubeAI, {target:g} in progress"
        self._target = target
        self._seen: deque[int] = deque(maxlen=60)
        self._down = 0

    def wish(self, now: int, service: Service) -> int:
        if now % 10:
            return service.wanted
        self._seen.append(len(service.held) + sum(len(pod.queue) for pod in service.pods))
        # The window is full from the start, with nothing in it.
        mean = sum(self._seen) / 60
        number = _bounded(math.ceil(mean / self._target))
        # Three looks in a row for fewer: scaleDownDelaySeconds is 30.
        self._down = self._down + 1 if number < service.wanted else 0
        if number < service.wanted and self._down < 3:
            return service.wanted
        return number


class _Hpa(ABC):
    """The controller's loop: 15 s, 10 % tolerance, 100 % or 4 pods up, five minutes to go down."""

    idlest_first = False

    def __init__(self) -> None:
        self._wishes: deque[tuple[int, int]] = deque()

    def wish(self, now: int, service: Service) -> int:
        if now % 15:
            return service.wanted
        number = self.recommended(now, service)
        self._wishes.append((now, number))
        while self._wishes[0][0] <= now - 300:
            self._wishes.popleft()
        if number < service.wanted:
            number = min(service.wanted, max(wish for _, wish in self._wishes))
        else:
            number = min(number, max(2 * service.wanted, service.wanted + 4))
        return _bounded(number)

    @abstractmethod
    def recommended(self, now: int, service: Service) -> int:
        """So many pods by what is measured; the number in force within the tolerance."""


class HpaCpu(_Hpa):
    """Busy share of the pods, as metrics-server has it: the last 15 s, up to 15 s old."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self.name = f"HPA, CPU {target} %"
        self._target = target / 100
        self._before: dict[str, float] = {}
        self._known: dict[str, float] = {}

    def wish(self, now: int, service: Service) -> int:
        number = super().wish(now, service)
        if now % 15 == 7:
            ready = service.ready(now)
            self._known = {
                pod.name: (pod.busy - self._before[pod.name]) / 15
                for pod in ready
                if pod.name in self._before
            }
            self._before = {pod.name: pod.busy for pod in ready}
        return number

    def recommended(self, now: int, service: Service) -> int:
        pods = service.staying()
        known = [self._known[pod.name] for pod in pods if pod.name in self._known]
        if not known:
            return service.wanted
        ratio = sum(known) / len(known) / self._target
        if abs(ratio - 1) <= 0.1:
            return service.wanted
        # Pods without a figure count as idle for more, and as busy for fewer.
        lacking = len(pods) - len(known)
        if lacking:
            filled = (sum(known) + (lacking if ratio < 1 else 0)) / len(pods) / self._target
            if abs(filled - 1) <= 0.1 or (filled > 1) != (ratio > 1):
                return service.wanted
            return math.ceil(filled * len(pods) - 1e-9)
        return math.ceil(ratio * len(known) - 1e-9)


class KedaRequests(_Hpa):
    """Requests per second over a minute, scraped every 15 s, by a number for each pod."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.name = f"KEDA, {target:g} requests/s"
        self._target = target
        self._scrapes: deque[int] = deque(maxlen=5)

    def wish(self, now: int, service: Service) -> int:
        if now % 15 == 11:
            self._scrapes.append(_came(service.pods) + _came(service.gone) + len(service.held))
        return super().wish(now, service)

    def recommended(self, now: int, service: Service) -> int:
        if len(self._scrapes) < 2:
            return service.wanted
        rate = (self._scrapes[-1] - self._scrapes[0]) / (15 * (len(self._scrapes) - 1))
        ratio = rate / (self._target * service.wanted)
        if abs(ratio - 1) <= 0.1:
            return service.wanted
        return math.ceil(rate / self._target - 1e-9)


def _came(pods: Sequence[Pod]) -> int:
    return sum(pod.answered + len(pod.queue) for pod in pods)
