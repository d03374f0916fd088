"""Requests to the pods behind a service's address, and what the pods' metrics say of them.

An open-loop client: so many requests per second, divided between the pods that the address, or a
route's weights, lead to. How a pod answers goes by the `maxPassages` that it was made with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import HTTP_ROUTE, POD, SERVICE
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.load import PodLoad, Sample, Shadowed
from reranker_operator.names import REVISION_LABEL
from reranker_operator.runtime.queue import Key

from .controllers import NAMESPACE, Controllers, is_ready

_TOKENS = 2000
_KEPT_SECONDS = 70


@dataclass(frozen=True)
class Answers:
    """How the pods of one kind answer."""

    failing: float = 0.0
    seconds_per_token: float = 0.0001
    #: Kendall's tau of their scores and the former revision's.
    tau: float = 1.0
    #: Share of what is only compared that they do not answer.
    unanswered: float = 0.0
    #: Seconds per token of what is only compared, which fills no batches.
    compared_seconds_per_token: float = 0.0001
    #: The most tokens per second that a pod does; the rest waits. None: all that come.
    at_most: float | None = None


@dataclass
class _Pod:
    revision: str
    samples: list[Sample] = field(default_factory=list)


class Traffic:
    """Stands where the operator reads its pods."""

    def __init__(self, world: Controllers, per_second: float, name: str = "rank") -> None:
        self._world, self._name, self.per_second = world, name, per_second
        #: By the pod's `maxPassages`.
        self.answers: dict[str, Answers] = {}
        self._pods: dict[str, _Pod] = {}
        self._at = world.now.timestamp()
        self._read_from = float("-inf")
        #: Revisions whose pods can't be read any more, and names of such pods.
        self.dumb: set[str] = set()
        #: Requests since the beginning, by revision; those that nobody was there for under "".
        self.sent: dict[str, float] = {}

    # As `runtime.loads.Loads`.

    def of(
        self, service: RerankerService, pods: Iterable[Mapping[str, Any]]
    ) -> tuple[PodLoad, ...]:
        if service.metadata.name != self._name:
            return ()
        self._go_on()
        names = {pod["metadata"]["name"] for pod in pods}
        return tuple(
            PodLoad(name, "serving", pod.revision, self._known(name, pod))
            for name, pod in sorted(self._pods.items())
            if name in names
        )

    def lose(self) -> None:
        """The operator is another process, which has yet to read its pods."""
        self._read_from = self._world.now.timestamp()

    def _known(self, name: str, pod: "_Pod") -> tuple[Sample, ...]:
        if self.dumb & {name, pod.revision}:
            return ()
        return tuple(entry for entry in pod.samples if entry.at > self._read_from)

    def planned(self, _world: object) -> None:
        """Nobody is woken by loads here: the deadlines are enough."""

    def forget(self, _key: Key) -> None:
        """As above."""

    def _go_on(self) -> None:
        """Let the requests of the time since the last look come and be answered."""
        now = self._world.now.timestamp()
        count, shares = (now - self._at) * self.per_second, self._shares()
        self._at = now
        if not shares:
            self.sent[""] = self.sent.get("", 0.0) + count
        work = self._compared_work(count, shares)
        for pod in self._running():
            name, revision = pod["metadata"]["name"], pod["metadata"]["labels"][REVISION_LABEL]
            state = self._pods.setdefault(name, _Pod(revision, [Sample(now)]))
            done, last = count * shares.get(name, 0.0), state.samples[-1]
            self.sent[revision] = self.sent.get(revision, 0.0) + done
            answers = self.answers.get(passages_of(pod), Answers())
            came, done = done, _done(done, now - last.at, answers)
            tokens = done * _TOKENS * (1 - answers.failing)
            compared = work.get(name, 0.0) * _TOKENS
            shadowed, unanswered = self._shadowed(pod, done, last)
            busy = tokens * answers.seconds_per_token
            if came > done:
                busy = now - last.at
            sample = Sample(
                now,
                backlog_tokens=last.backlog_tokens + (came - done) * _TOKENS,
                in_progress=last.in_progress + came - done,
                requests=last.requests + done + work.get(name, 0.0),
                failed=last.failed + done * answers.failing,
                tokens=last.tokens + tokens + compared,
                busy_seconds=last.busy_seconds
                + busy
                + compared * answers.compared_seconds_per_token,
                shadowed=shadowed,
                unanswered=unanswered,
            )
            young = [entry for entry in state.samples if now - entry.at <= _KEPT_SECONDS]
            state.samples = [*(entry for entry in young if entry.at < now), sample]

    def _compared_work(self, count: float, shares: Mapping[str, float]) -> dict[str, float]:
        """Requests for each pod that NAME-preview leads to, beside those of clients."""
        others = self._behind(f"{self._name}-preview")
        sent = sum(
            count * shares.get(pod["metadata"]["name"], 0.0) * float(percent) / 100
            for pod in self._running()
            if (percent := variable_of(pod, "RERANKER_SHADOW_PERCENT")) is not None
            if others and _labels(pod) != _labels(others[0])
        )
        return {pod["metadata"]["name"]: sent / len(others) for pod in others}

    def _shadowed(self, pod: Json, done: float, last: Sample) -> tuple[tuple[Shadowed, ...], float]:
        """Some of the requests go to another revision at NAME-preview, too, and are compared, or
        not answered there.
        """
        unanswered = last.unanswered
        percent = variable_of(pod, "RERANKER_SHADOW_PERCENT")
        others = self._behind(f"{self._name}-preview")
        known = {entry.revision: entry for entry in last.shadowed}
        if percent is not None and others:
            other = _labels(others[0])[REVISION_LABEL]
            count = done * float(percent) / 100
            if other != _labels(pod)[REVISION_LABEL]:
                answers = self.answers.get(passages_of(others[0]), Answers())
                before = known.get(other, Shadowed(other, 0, 0))
                unanswered += count * answers.unanswered
                count *= 1 - answers.unanswered
                tau = before.tau + count * answers.tau
                known[other] = Shadowed(other, before.requests + count, tau)
        return tuple(known.values()), unanswered

    def _running(self) -> list[Json]:
        return [
            pod
            for pod in self._world.cluster.select(POD, NAMESPACE)
            if pod["status"].get("phase") == "Running" and REVISION_LABEL in _labels(pod)
        ]

    def _shares(self) -> dict[str, float]:
        """The part of the requests that each pod gets."""
        shares: dict[str, float] = {}
        backends = self._backends()
        whole = sum(backends.values())
        for name, weight in backends.items():
            behind = [pod["metadata"]["name"] for pod in self._behind(name)]
            for pod in behind:
                shares[pod] = shares.get(pod, 0.0) + weight / whole / len(behind)
        return shares

    def _behind(self, name: str) -> list[Json]:
        """The pods that an address leads to."""
        address = self._world.cluster.find(SERVICE, NAMESPACE, name)
        selector = (address or {"spec": {"selector": {"": ""}}})["spec"]["selector"]
        return [
            pod
            for pod in self._running()
            if selector.items() <= _labels(pod).items()
            and is_ready(pod)
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def _backends(self) -> dict[str, int]:
        route = self._world.cluster.find(HTTP_ROUTE, NAMESPACE, self._name)
        if route is None:
            return {self._name: 1}
        return {
            backend["name"]: backend.get("weight", 1)
            for backend in route["spec"]["rules"][0]["backendRefs"]
        }


def _done(came: float, seconds: float, answers: Answers) -> float:
    """Requests of those that came which a pod gets done."""
    return came if answers.at_most is None else min(came, answers.at_most * seconds / _TOKENS)


def _labels(pod: Json) -> dict[str, str]:
    labels: dict[str, str] = pod["metadata"].get("labels", {})
    return labels


def passages_of(pod: Json) -> str:
    """The `maxPassages` that a pod was made with."""
    return str(variable_of(pod, "RERANKER_MAX_PASSAGES"))


def variable_of(pod: Json, name: str) -> str | None:
    """A variable of the gateway in a pod; None where it is not set."""
    env = pod["spec"]["containers"][0]["env"]
    return next((entry["value"] for entry in env if entry["name"] == name), None)
