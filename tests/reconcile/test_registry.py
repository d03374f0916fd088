"""Engines from and to a registry: it saves builds, and never stops one that it was not asked to."""

from typing import Any

import pytest

from reranker_contracts import StageReason
from reranker_operator.api.conditions import find
from reranker_operator.api.meta import JOB, POD, RERANKER_ENGINE

from .controllers import NAMESPACE, PARITY, Fault
from .simulation import Simulation

REPOSITORY = "oci://registry.example/engines"
KEY = {"requireSigned": {"configMap": {"name": "trusted"}}}


def _registry(**more: Any) -> dict[str, Any]:
    return {"registry": {"repository": REPOSITORY, **more}}


def _jobs(sim: Simulation) -> list[str]:
    """Stages of the engine's Jobs."""
    stages = [
        entry["metadata"]["labels"]["reranker.dev/stage"]
        for entry in sim.cluster.select(JOB, NAMESPACE)
    ]
    return sorted(stage for stage in stages if stage != "resolve")


def _told(sim: Simulation, kind: str) -> tuple[str, str, str]:
    (engine,) = sim.engines()
    entry = find(engine.status.conditions, kind)  # type: ignore[arg-type]
    assert entry is not None, engine.status.conditions
    return entry.status, entry.reason, entry.message


async def _digest_of_the_engine(**engine: Any) -> str:
    """What this service's engine is called wherever it is built."""
    elsewhere = Simulation()
    elsewhere.create_service(engine=engine)
    await elsewhere.converge()
    return elsewhere.engines()[0].spec.digest


async def _filled(**engine: Any) -> Simulation:
    """A cluster with an empty store, and a registry to which another one pushed."""
    sim = Simulation()
    reference = f"{REPOSITORY}:{await _digest_of_the_engine(**engine)}"
    sim.registry[reference] = PARITY
    return sim


async def test_what_one_cluster_pushed_another_one_takes() -> None:
    first, second = Simulation(), Simulation()
    first.create_service(engine=_registry(push=True))
    await first.converge()
    assert first.condition("Ready") == ("True", "Ready")
    assert _jobs(first) == ["compile", "prepare", "pull", "push"]
    assert _told(first, "Pulled")[:2] == ("False", "ArtefactNotFound")
    assert _told(first, "Pushed")[:2] == ("True", "Done")
    second.registry = dict(first.registry)
    second.create_service(engine=_registry())
    await second.converge()
    assert second.condition("Ready") == ("True", "Ready")
    assert _jobs(second) == ["pull"]
    assert _told(second, "Pulled")[0] == "True"
    assert second.engines()[0].status.parity == PARITY
    assert second.engines()[0].spec.digest == first.engines()[0].spec.digest


async def test_nothing_is_said_of_an_engine_that_nobody_has_built_yet(sim: Simulation) -> None:
    sim.create_service(engine=_registry())
    await sim.converge()
    assert "ArtefactNotFound" not in {entry["reason"] for entry in sim.events()}
    assert "not pulled" not in sim.message("EngineReady")


async def test_the_registry_is_no_part_of_the_engine(sim: Simulation) -> None:
    sim.create_service()
    await sim.converge()
    (before,) = sim.engines()
    sim.edit_service(engine=_registry())
    await sim.converge()
    (after,) = sim.engines()
    assert (after.metadata.uid, after.spec.digest) == (before.metadata.uid, before.spec.digest)
    # It is ready already, so there is nothing to ask for.
    assert "pull" not in _jobs(sim)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("refused", StageReason.REGISTRY_UNREACHABLE),
        Fault("refused", StageReason.REGISTRY_UNAUTHORIZED),
        Fault("refused", StageReason.CHECKSUM_MISMATCH),
        Fault("refused", StageReason.SIGNATURE_INVALID),
        Fault("killed"),
        Fault("oom"),
        Fault("vanished"),
        Fault("lost"),
    ],
    ids=lambda fault: f"{fault.how}-{fault.reason}",
)
async def test_a_registry_in_trouble_stops_no_build(fault: Fault) -> None:
    sim = await _filled()
    sim.faults["pull"] = [fault]
    sim.create_service(engine=_registry())
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _jobs(sim).count("pull") == 1
    assert "compile" in _jobs(sim)
    status, reason, message = _told(sim, "Pulled")
    assert status == "False"
    assert "the engine is built here" in message
    assert f"not pulled ({reason})" in sim.message("EngineReady")
    if fault.how == "refused":
        assert reason == fault.reason
        engines = [e for e in sim.events() if e["involvedObject"]["kind"] == "RerankerEngine"]
        assert [e["reason"] for e in engines].count(fault.reason) == 1
    writes = len(sim.cluster.writes)
    sim.restart_operator()
    await sim.advance(7 * 86400)
    assert len(sim.cluster.writes) == writes, "it is asked once"


async def test_an_engine_without_the_signature_is_built_here() -> None:
    sim = await _filled()
    sim.create_service(engine=_registry(**KEY))
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _told(sim, "Pulled")[:2] == ("False", "SignatureInvalid")
    assert "compile" in _jobs(sim)


async def test_an_engine_with_the_signature_is_taken() -> None:
    sim = await _filled()
    sim.signed = set(sim.registry)
    sim.create_service(engine=_registry(**KEY))
    await sim.converge()
    assert _jobs(sim) == ["pull"]
    (engine,) = sim.engines()
    assert engine.status.registry is not None
    assert engine.status.registry.origin is not None
    assert engine.status.registry.origin.checked_with == "ConfigMap/trusted/cosign.pub"


async def test_an_engine_that_was_taken_unchecked_serves_nobody_who_wants_it_signed() -> None:
    sim = await _filled()
    sim.create_service(engine=_registry())
    await sim.converge()
    sim.create_service("strict", engine=_registry(**KEY), serving={"maxPassages": 7})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("EngineReady", "strict") == ("False", "SignatureInvalid")
    assert "for another service" in sim.message("EngineReady", "strict")
    assert sim.service("strict").status.revision is None


async def test_where_nothing_is_built_the_registry_is_asked_until_it_has_the_engine(
    sim: Simulation,
) -> None:
    sim.create_service(engine=_registry(build=False))
    pauses = []
    for _ in range(3):
        await sim.settle()
        assert sim.condition("EngineReady") == ("False", "ArtefactNotFound")
        assert _told(sim, "Pulled")[:2] == ("False", "ArtefactNotFound")
        pauses.append(sim.next_wake)
        await sim.advance(sim.next_wake or 0)
    assert pauses == [10, 20, 40]
    assert not {"prepare", "compile"} & set(_jobs(sim))
    sim.registry[f"{REPOSITORY}:{sim.engines()[0].spec.digest}"] = PARITY
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert not {"prepare", "compile"} & set(_jobs(sim))


async def test_other_settings_ask_again_at_once(sim: Simulation) -> None:
    sim.faults["pull"] = [Fault("refused", StageReason.REGISTRY_UNAUTHORIZED)] * 9
    sim.create_service(engine=_registry(build=False))
    await sim.settle()
    assert sim.condition("EngineReady") == ("False", "RegistryUnauthorized")
    sim.registry[f"{REPOSITORY}:{sim.engines()[0].spec.digest}"] = PARITY
    sim.faults.clear()
    sim.edit_service(engine=_registry(build=False, secretName="login"))
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_changed_secret_asks_again_at_once(sim: Simulation) -> None:
    sim.put_file("Secret", "login")
    sim.faults["pull"] = [Fault("refused", StageReason.REGISTRY_UNAUTHORIZED)]
    sim.create_service(engine=_registry(build=False, secretName="login"))
    await sim.settle()
    assert sim.condition("EngineReady") == ("False", "RegistryUnauthorized")
    sim.registry[f"{REPOSITORY}:{sim.engines()[0].spec.digest}"] = PARITY
    sim.put_file("Secret", "login", "2")
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_pull_that_lacks_its_secret_is_given_up(sim: Simulation) -> None:
    """The kubelet would wait for it without end."""
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "login" not found'}
    status = {"name": "pull", "image": "builder:1", "state": {"waiting": waiting}}
    sim.told["pull"] = {"phase": "Pending", "containerStatuses": [status]}
    sim.create_service(engine=_registry(secretName="login"))
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _told(sim, "Pulled")[:2] == ("False", "SecretNotFound")
    assert "pull" not in _jobs(sim)
    assert "spec.engine.registry" in _told(sim, "Pulled")[2]


async def test_a_push_is_tried_again_and_nobody_waits_for_it(sim: Simulation) -> None:
    sim.faults["push"] = [Fault("refused", StageReason.REGISTRY_UNREACHABLE)] * 2
    sim.create_service(engine=_registry(pull=False, push=True))
    await sim.settle()
    pauses = []
    for _ in range(2):
        assert sim.condition("Ready") == ("True", "Ready")
        assert _told(sim, "Pushed")[:2] == ("False", "RegistryUnreachable")
        assert "not pushed (RegistryUnreachable)" in sim.message("EngineReady")
        pauses.append(sim.next_wake)
        await sim.advance(sim.next_wake or 0)
    assert pauses == [10, 20]
    assert _told(sim, "Pushed")[:2] == ("True", "Done")
    assert "not pushed" not in sim.message("EngineReady")
    assert list(sim.registry) == [f"{REPOSITORY}:{sim.engines()[0].spec.digest}"]
    writes = len(sim.cluster.writes)
    sim.restart_operator()
    await sim.advance(86400)
    assert len(sim.cluster.writes) == writes


async def test_an_engine_that_is_ready_is_pushed_when_that_is_asked_for(sim: Simulation) -> None:
    sim.create_service()
    await sim.converge()
    sim.edit_service(engine=_registry(push=True, signKey={"name": "signing"}))
    await sim.converge()
    assert _jobs(sim).count("push") == 1
    assert sim.signed == set(sim.registry) != set()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_what_came_from_the_registry_is_not_brought_back() -> None:
    sim = await _filled()
    sim.create_service(engine=_registry(push=True))
    await sim.converge()
    assert "push" not in _jobs(sim)
    assert _told(sim, "Pushed")[:2] == ("True", "Done")


@pytest.mark.parametrize("target", ["engines", "mirror"])
async def test_what_came_unchecked_is_not_signed(target: str) -> None:
    """Else who may write to the registry has our signature under an engine of theirs."""
    sim = await _filled()
    theirs = set(sim.registry)
    sim.create_service(engine=_registry())
    await sim.converge()
    signing = {"push": True, "signKey": {"name": "signing"}}
    repository = f"oci://registry.example/{target}"
    sim.edit_service(engine={"registry": {"repository": repository, **signing}})
    await sim.converge()
    assert "push" not in _jobs(sim)
    assert sim.signed == set()
    status, reason, message = _told(sim, "Pushed")
    assert (status, reason) == ("False", "SignatureInvalid")
    assert "neither signed nor pushed" in message
    assert "not pushed (SignatureInvalid)" in sim.message("EngineReady")
    assert sim.condition("Ready") == ("True", "Ready"), "it serves as before"
    # As the message says: built here it is signed.
    sim.edit_service(engine={"registry": {"repository": repository, "pull": False, **signing}})
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, sim.engines()[0].metadata.name)
    await sim.converge()
    assert "compile" in _jobs(sim)
    assert _told(sim, "Pushed")[:2] == ("True", "Done")
    assert sim.signed == {next(iter(theirs)).replace("/engines:", f"/{target}:")}


async def test_what_came_with_a_trusted_signature_is_signed_too() -> None:
    sim = await _filled()
    sim.signed = set(sim.registry)
    sim.create_service(engine=_registry(push=True, signKey={"name": "signing"}, **KEY))
    await sim.converge()
    assert _jobs(sim) == ["pull", "push"]
    assert _told(sim, "Pushed")[:2] == ("True", "Done")


async def test_damaged_files_come_from_the_registry_again() -> None:
    sim = await _filled()
    sim.create_service(engine=_registry())
    await sim.converge()
    (engine,) = sim.engines()
    await sim.advance(7200)
    sim.damaged.add(f"engines/{engine.spec.digest}")
    for pod in list(sim.cluster.select(POD, NAMESPACE)):
        if "reranker.dev/revision" in pod["metadata"]["labels"]:
            sim.cluster.remove(POD, NAMESPACE, pod["metadata"]["name"])
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.damaged == set()
    assert not {"prepare", "compile"} & set(_jobs(sim))


async def test_damaged_files_that_the_registry_lost_are_built(sim: Simulation) -> None:
    filled = await _filled()
    filled.create_service(engine=_registry())
    await filled.converge()
    (engine,) = filled.engines()
    await filled.advance(7200)
    filled.registry.clear()
    filled.damaged.add(f"engines/{engine.spec.digest}")
    for pod in list(filled.cluster.select(POD, NAMESPACE)):
        if "reranker.dev/revision" in pod["metadata"]["labels"]:
            filled.cluster.remove(POD, NAMESPACE, pod["metadata"]["name"])
    await filled.converge()
    assert filled.condition("Ready") == ("True", "Ready")
    assert {"prepare", "compile"} <= set(_jobs(filled))
    (engine,) = filled.engines()
    assert engine.status.registry is not None
    assert engine.status.registry.origin is None


async def test_thresholds_count_for_what_comes_from_the_registry() -> None:
    sim = await _filled()
    poor = PARITY.model_copy(update={"kendall_tau": 0.5})
    sim.registry = dict.fromkeys(sim.registry, poor)
    sim.create_service(engine=_registry())
    await sim.converge()
    assert sim.condition("EngineReady") == ("False", "ParityRefused")
    assert sim.service().status.revision is None


async def test_login_and_keys_are_mounted_where_they_are_needed(sim: Simulation) -> None:
    sim.create_service(
        engine=_registry(
            push=True,
            secretName="login",
            signKey={"name": "signing", "passwordKey": "password"},
            requireSigned={"secret": {"name": "trusted", "key": "team.pub"}},
        ),
        caBundle={"configMap": {"name": "company-ca"}},
        proxy={"httpsProxy": "http://proxy.example:3128"},
    )
    await sim.converge()
    seen = {}
    for job in sim.cluster.select(JOB, NAMESPACE):
        spec = job["spec"]["template"]["spec"]
        named = {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
        container = spec["containers"][0]
        seen[job["metadata"]["labels"]["reranker.dev/stage"]] = named
        if container["name"] in ("pull", "push"):
            assert "--registry-config" in container["args"]
            variables = {entry["name"] for entry in container["env"]}
            assert {"HTTPS_PROXY", "SSL_CERT_FILE", "DOCKER_CONFIG"} <= variables
            assert ("COSIGN_PASSWORD" in variables) == (container["name"] == "push")
    assert seen == {
        "prepare": set(),
        "compile": set(),
        "pull": {"login", "trusted"},
        "push": {"login", "signing"},
    }
