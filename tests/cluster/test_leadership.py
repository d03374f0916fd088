"""Two replicas of the operator, as processes, on the real API server: one works at a time."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.api_proxy import ApiProxy, api_proxy
from support.kubectl import Json, Kubectl, eventually
from support.operator_process import start_operator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

_LEASE = "leadership"
#: Seconds; the least that the operator takes.
_LEASE_SECONDS = 5


class Replica:
    """One process, and everything that it asks of the API server."""

    def __init__(self, name: str, proxy: ApiProxy, folder: Path, namespace: str) -> None:
        self.name, self.proxy = name, proxy
        self._log = folder / "log"
        settings = {
            "identity": name,
            "namespaces": namespace,
            "lease_name": _LEASE,
            "lease_namespace": namespace,
            "lease_seconds": str(_LEASE_SECONDS),
            "read_nodes": "false",
            "http_port": "0",
            "log_format": "text",
        }
        with self._log.open("wb") as log:
            self.process = start_operator(
                proxy.kubeconfig(folder), settings, stdout=log, stderr=log
            )

    def log(self) -> str:
        """What it has said so far."""
        return f"{self.name}: {self._log.read_text()[-2000:]}"

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.wait()


class Pair:
    """A leader and its standby."""

    def __init__(self, api: Kubectl, first: Replica, second: Replica) -> None:
        self.api, self.replicas = api, (first, second)

    def holder(self) -> str | None:
        """Who has the Lease."""
        found = self.api.list("leases")
        mine = [entry for entry in found if entry["metadata"]["name"] == _LEASE]
        return mine[0]["spec"].get("holderIdentity") if mine else None

    def leader_and_other(self) -> tuple[Replica, Replica]:
        """Once one of them leads."""
        first, second = self.replicas
        eventually(self.holder, within=30, describe=lambda: first.log() + second.log())
        return (first, second) if self.holder() == first.name else (second, first)

    def edit(self, label: str) -> None:
        """A change that is answered by a write of the status and nothing else."""
        self.api.apply(_service(label))

    def until_seen(self) -> None:
        """Until the status is about what was applied last."""
        eventually(self._is_seen, within=40, every=0.1, describe=self._logs)

    def _logs(self) -> str:
        return "\n".join(replica.log() for replica in self.replicas)

    def _is_seen(self) -> bool:
        live = self.api.get("rr", "led")
        return bool(
            live.get("status", {}).get("observedGeneration") == live["metadata"]["generation"]
        )


def _service(name: str) -> Json:
    """It waits for a claim that never comes."""
    return {
        "apiVersion": "reranker.dev/v1alpha1",
        "kind": "RerankerService",
        "metadata": {"name": "led"},
        "spec": {"model": {"source": "pvc://nowhere/model", "servedName": name}},
    }


@pytest.fixture
def pair(api: Kubectl, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        replicas = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            proxy = stack.enter_context(api_proxy(api.program, api.kubeconfig))
            replicas.append(Replica(name, proxy, folder, api.namespace))
            stack.callback(replicas[-1].end)
        stack.callback(api, "delete", "rr,lease", "--all", "--wait=false")
        yield Pair(api, *replicas)


def test_a_leader_that_ends_hands_over_at_once(pair: Pair) -> None:
    leader, other = pair.leader_and_other()
    pair.edit("before")
    pair.until_seen()
    assert not other.proxy.writes(), leader.log() + other.log()
    leader.process.send_signal(signal.SIGTERM)
    assert leader.process.wait(10) == 0, leader.log()
    eventually(lambda: pair.holder() == other.name, within=5, every=0.1, describe=other.log)
    pair.edit("after")
    pair.until_seen()
    assert other.proxy.writes()


def test_a_leader_that_is_killed_is_replaced_when_its_lease_ends(pair: Pair) -> None:
    leader, other = pair.leader_and_other()
    pair.edit("before")
    pair.until_seen()
    leader.process.kill()
    leader.process.wait()
    pair.edit("after")
    pair.until_seen()
    assert pair.holder() == other.name


def test_a_leader_that_was_frozen_writes_no_more(pair: Pair) -> None:
    leader, other = pair.leader_and_other()
    pair.edit("before")
    pair.until_seen()
    began = time.monotonic()
    leader.process.send_signal(signal.SIGSTOP)
    # Its watches are open still: this waits in its connections for the moment it wakes up.
    pair.edit("while it sleeps")
    pair.until_seen()
    assert time.monotonic() - began > _LEASE_SECONDS / 2
    for number in range(3):
        pair.edit(f"again {number}")
        pair.until_seen()
    # Nor does it learn from the Lease that another one holds it.
    leader.proxy.fault = lambda seen: "hang" if "/leases" in seen.path else None
    woken = time.monotonic()
    leader.process.send_signal(signal.SIGCONT)
    assert leader.process.wait(30) == 1, leader.log()
    # What it sent before it fell asleep, an Event for one, is nobody's concern.
    assert [entry for entry in leader.proxy.writes() if entry.at >= woken] == [], leader.log()
    assert pair.holder() == other.name
