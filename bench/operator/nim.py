"""NVIDIA's NIM Operator in the place of ours: as many NIMServices on the same control plane.

It is built from a checkout with its vendored modules. Two things are done for it: its templates,
which it looks for at the root of the file system, are taken from the checkout, and what it asks
each service's models of, by the address of its Service, is answered, as a NIM would. Without nodes
nobody else could.
"""

import asyncio
import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml
from api import Api, Json, in_parallel
from control_plane import ControlPlane
from process import cpu_of, memory_of
from support.bare_control_plane import end

_LIMIT_SECONDS = 900
_CALM_SECONDS = 5.0
_MODELS = json.dumps({"object": "list", "data": [{"id": "model", "object": "model"}]})
_IMAGE = "nvcr.io/nim/nvidia/llama-3.2-nv-rerankqa-1b-v2"


def build(checkout: Path, folder: Path) -> Path:
    """The operator's program; a few minutes the first time."""
    here = json.dumps(str(checkout / "manifests"))
    replaced: dict[str, str] = {}
    for source in (file for top in ("cmd", "internal") for file in checkout.glob(f"{top}/**/*.go")):
        if '"/manifests"' in (text := source.read_text()):
            patched = folder / f"{len(replaced)}.go"
            patched.write_text(text.replace('"/manifests"', here))
            replaced[str(source)] = str(patched)
    overlay = folder / "overlay.json"
    overlay.write_text(json.dumps({"Replace": replaced}))
    program = folder / "nim-operator"
    command = ["go", "build", "-mod=vendor", "-overlay", str(overlay), "-o", str(program), "./cmd"]
    environment = os.environ | {"CGO_ENABLED": "0"}
    subprocess.run(command, cwd=checkout, env=environment, check=True)
    return program


def _nim_service(namespace: str, name: str) -> Json:
    """As in the samples of the NIM Operator for a reranker, with a claim that exists."""
    return {
        "apiVersion": "apps.nvidia.com/v1alpha1",
        "kind": "NIMService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "image": {"repository": _IMAGE, "tag": "1.3.1", "pullSecrets": ["ngc-secret"]},
            "authSecret": "ngc-api-secret",
            "storage": {"pvc": {"name": "store"}},
            "replicas": 1,
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "expose": {"service": {"type": "ClusterIP", "port": 8000}},
        },
    }


async def prepare(api: Api, checkout: Path, spaces: list[str]) -> None:
    """Definitions, and in each namespace a claim with a volume."""
    for file in sorted((checkout / "config/crd/bases").glob("*.yaml")):
        await api.create("customresourcedefinitions", yaml.safe_load(file.read_text()))
    size = {"storage": "20Gi"}
    spec: Json = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    for space in spaces:
        await api.create("namespaces", {"metadata": {"name": space}})
        claim = {"namespace": space, "name": "store"}
        volume = {"capacity": size, "hostPath": {"path": "/none"}, "claimRef": claim}
        named = {"metadata": {"name": f"nim-{space}"}, "spec": spec | volume}
        await api.create("persistentvolumes", named)
        asked = {"resources": {"requests": size}, "volumeName": f"nim-{space}"}
        await api.create("persistentvolumeclaims", {"metadata": claim, "spec": spec | asked})


async def measure(
    plane: ControlPlane, checkout: Path, folder: Path, spaces: list[str], count: int
) -> dict[str, float]:
    """Seconds and MiB by the names of our own figures, for `count` services."""
    await prepare(plane.api, checkout, spaces)
    program = build(checkout, folder)
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    process = _start(program, plane, checkout, server.sockets[0].getsockname()[1])
    try:
        await asyncio.sleep(_CALM_SECONDS)
        return await _apply(plane.api, process, spaces, count)
    finally:
        end(process)
        server.close()


def _start(
    program: Path, plane: ControlPlane, checkout: Path, port: int
) -> "subprocess.Popen[bytes]":
    # Of all that it asks, only what is on loopback (the API server) goes there directly.
    ways = {"KUBECONFIG": str(plane.kubeconfig), "HTTP_PROXY": f"http://127.0.0.1:{port}"}
    with (plane.logs / "nim-operator.log").open("wb") as log:
        return subprocess.Popen(
            [program, "--health-probe-bind-address=127.0.0.1:0"],
            stdout=log, stderr=log, env=os.environ | ways, cwd=checkout,
        )  # fmt: skip


async def _apply(
    api: Api, process: "subprocess.Popen[bytes]", spaces: list[str], count: int
) -> dict[str, float]:
    share = -(-count // len(spaces))
    places = itertools.islice(itertools.product(range(share), spaces), count)
    bodies = [_nim_service(space, f"rank-{number:03}") for number, space in places]
    cpu, began = cpu_of(process.pid), time.monotonic()
    made = asyncio.create_task(_count(api, "deployments", count, lambda _: True))
    ready = asyncio.create_task(_count(api, "nimservices", count, _is_ready))
    await in_parallel(partial(api.create, "nimservices", body) for body in bodies)
    async with asyncio.timeout(_LIMIT_SECONDS):
        deployments, all_ready = await made - began, await ready - began
    await _until_calm(process.pid)
    return {
        "applied_deployments_seconds": deployments,
        "applied_ready_seconds": all_ready,
        "apply_cpu_seconds": cpu_of(process.pid) - cpu,
        "rss_peak_mib": memory_of(process.pid, peak=True),
        "rss_settled_mib": memory_of(process.pid),
    }


async def _count(api: Api, plural: str, count: int, wanted: Callable[[Json], bool]) -> float:
    """The moment at which so many objects are as wanted."""
    seen: set[str] = set()
    async for event in api.watch(plural):
        if wanted(event["object"]):
            seen.add(event["object"]["metadata"]["uid"])
        if len(seen) >= count:
            return time.monotonic()
    raise RuntimeError("the watch has ended")


def _is_ready(service: Json) -> bool:
    return bool(service.get("status", {}).get("state") == "Ready")


async def _until_calm(pid: int) -> None:
    """It uses next to no processor time any more."""
    async with asyncio.timeout(_LIMIT_SECONDS):
        used = 1.0
        while used > 0.05 * _CALM_SECONDS:
            before = cpu_of(pid)
            await asyncio.sleep(_CALM_SECONDS)
            used = cpu_of(pid) - before


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a NIM says of its models, to whatever is asked."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(_MODELS)}"
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"{head}\r\n\r\n{_MODELS}".encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
