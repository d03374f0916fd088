"""What other people do to the operator's objects, and how it looks when it is undone."""

from collections.abc import Awaitable, Callable
from typing import Any

from api import Api, Json

from reranker_operator import names


async def deployments_of(api: Api, place: tuple[str, str]) -> list[Json]:
    """All Deployments of a service."""
    found: list[Json] = await api.list("deployments", place[0], f"{names.SERVICE_LABEL}={place[1]}")
    return found


async def _deployment(api: Api, place: tuple[str, str]) -> Json | None:
    found = await deployments_of(api, place)
    return found[0] if found else None


async def _deployment_name(api: Api, place: tuple[str, str]) -> str:
    live = await _deployment(api, place)
    if live is None:
        raise RuntimeError(f"{'/'.join(place)} has no Deployment")
    return str(live["metadata"]["name"])


def _change(patch: Json) -> Callable[[Api, tuple[str, str]], Awaitable[None]]:
    async def act(api: Api, place: tuple[str, str]) -> None:
        name = await _deployment_name(api, place)
        meta = {"namespace": place[0], "name": name}
        await api.patch("deployments", patch | {"metadata": patch.get("metadata", {}) | meta})

    return act


def _undone(look: Callable[[Json], bool]) -> Callable[[Api, tuple[str, str]], Awaitable[bool]]:
    async def ask(api: Api, place: tuple[str, str]) -> bool:
        live = await _deployment(api, place)
        return live is not None and "deletionTimestamp" not in live["metadata"] and look(live)

    return ask


def _gateway(**fields: Any) -> Json:
    containers = [{"name": "gateway", **fields}]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


def _container(live: Json) -> Any:
    containers = live["spec"]["template"]["spec"]["containers"]
    return next(entry for entry in containers if entry["name"] == "gateway")


async def _delete_deployment(api: Api, place: tuple[str, str]) -> None:
    await api.delete("deployments", place[0], await _deployment_name(api, place))


async def _change_port(api: Api, place: tuple[str, str]) -> None:
    meta = {"namespace": place[0], "name": place[1]}
    # Another number is another port with the name of ours, which is harder to undo than a field.
    ports = [{"name": "http", "port": 9999}, {"$patch": "replace"}]
    await api.patch("services", {"metadata": meta, "spec": {"ports": ports}})


async def _has_port(api: Api, place: tuple[str, str]) -> bool:
    live = await api.get("services", *place)
    return live is not None and any(port["port"] == 8000 for port in live["spec"]["ports"])


#: The eight rows: what somebody does, and how it looks when it is undone.
DRIFT = [
    (_change({"spec": {"replicas": 5}}), _undone(lambda d: d["spec"]["replicas"] < 5)),
    (
        _change(_gateway(env=[{"name": "DEBUG", "value": "1"}])),
        _undone(lambda d: all(entry["name"] != "DEBUG" for entry in _container(d)["env"])),
    ),
    (_change(_gateway(image="other:1")), _undone(lambda d: _container(d)["image"] != "other:1")),
    (
        _change(_gateway(resources={"limits": {"memory": "9Gi"}})),
        _undone(lambda d: _container(d)["resources"]["limits"]["memory"] != "9Gi"),
    ),
    (
        _change({"metadata": {"labels": {"team": "other"}}}),
        _undone(lambda d: "team" not in d["metadata"]["labels"]),
    ),
    (_delete_deployment, _undone(lambda _: True)),
    (_change_port, _has_port),
    (
        lambda api, place: api.delete("services", *place),
        lambda api, place: _exists(api, "services", place),
    ),
]


async def _exists(api: Api, plural: str, place: tuple[str, str]) -> bool:
    return await api.get(plural, *place) is not None
