"""Servers that are compared: how each is started, and in which ways it can be configured.

DIR/store/engines/   ours, one for each target that could be built
DIR/container        the Triton image, unpacked
DIR/peers, infinity  Python environments of the others, and DIR/tei its program
DIR/peer-model       the model as they want it
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from processes import free_port, gateway, running
from workloads import Asked

from reranker_contracts import ArtefactManifest, EngineIdentity
from reranker_contracts.manifest import MANIFEST
from reranker_contracts.parity import Thresholds

_HERE = Path(__file__).parent
_SHARED, _REGIONS = Path("/dev/shm"), "triton_*_backend_shm_region_*"  # noqa: S108
Dialect = Literal["nim", "rerank", "tei"]
_AUTO = ("openvino bf16", "openvino fp32", "onnxruntime fp32", "onnxruntime int8")
#: Arguments beyond those that a server needs to start.
Way = tuple[str, ...]


@dataclass(frozen=True)
class Server:
    """One that answers."""

    name: str
    url: str
    dialect: Dialect = "rerank"
    pid: int = 0

    def body(self, asked: Asked, model: str) -> bytes:
        """The same texts in the server's words."""
        if self.dialect == "nim":
            return asked.ranking(model)
        return asked.tei() if self.dialect == "tei" else asked.rerank(model)

    @property
    def path(self) -> str:
        """Where they go."""
        return "/v1/ranking" if self.dialect == "nim" else "/rerank"


def engines(directory: Path) -> dict[str, Path]:
    """What `prepare` has built, by runtime and precision; first what `auto` takes.

    What ranks less closely than the default gate wants comes last.
    """
    found, below = {}, set()
    for folder in (directory / "store/engines").iterdir():
        manifest = ArtefactManifest.model_validate_json((folder / MANIFEST).read_text())
        assert isinstance(manifest.identity, EngineIdentity)  # noqa: S101 - an engine's
        name = f"{manifest.identity.runtime} {manifest.identity.precision}"
        found[name] = folder
        if manifest.parity and not Thresholds().are_met(manifest.parity):
            below.add(name)
    order = sorted(found, key=lambda name: (name in below, _AUTO.index(name)))
    return {name: found[name] for name in order}


@contextlib.contextmanager
def triton(directory: Path, engine: Path, log: Path) -> Iterator[int]:
    """The real one, from its image; its gRPC port."""
    grpc, http = free_port(), free_port()
    container = (directory / "container").read_text().strip()
    command = [
        *("buildah", "run", "--isolation", "chroot", "--user", "65532:65532"),
        *("--volume", f"{engine.resolve()}:/engine:ro", container, "--"),
        *("env", f"RERANKER_THREADS={os.cpu_count()}", "HOME=/tmp"),
        *("tritonserver", "--model-repository=/engine/repository"),
        *("--model-control-mode=explicit", "--load-model=reranker"),
        *("--disable-auto-complete-config", "--exit-on-error=true", "--allow-metrics=false"),
        *("--http-address=127.0.0.1", f"--http-port={http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
    ]
    former = set(_SHARED.glob(_REGIONS))
    try:
        with running(command, log=log, until=f"http://127.0.0.1:{http}/v2/health/ready"):
            yield grpc
    finally:
        # Ended by force, as a container's processes are when the tool that runs it is told to end,
        # Triton leaves what it shared with its backend.
        for region in set(_SHARED.glob(_REGIONS)) - former:
            region.unlink()


@contextlib.contextmanager
def before(engine: Path, port: int, log: Path, **settings: int) -> Iterator[Server]:
    """A gateway before the Triton on `port`; `settings` are without their prefix."""
    with gateway(engine, port, log, None, **settings) as (process, url):
        yield Server("ours", url, "nim", process.pid)


@contextlib.contextmanager
def ours(directory: Path, engine: Path, logs: Path) -> Iterator[Server]:
    """Gateway and Triton as in a pod."""
    with (
        triton(directory, engine, logs / f"triton-{engine.name[:8]}.log") as port,
        before(engine, port, logs / f"gateway-{engine.name[:8]}.log") as server,
    ):
        yield server


@dataclass(frozen=True)
class Peer:
    """Another server, and the ways in which it is tried; the first is as it comes."""

    name: str
    ways: tuple[Way, ...]

    @contextlib.contextmanager
    def start(self, directory: Path, logs: Path, way: Way) -> Iterator[Server]:
        """Run it. Raises RuntimeError when it does not answer, OSError when it is not there."""
        port = free_port()
        command, folder = self._command(directory.resolve(), port)
        name = " ".join([self.name, *way])
        url = f"http://127.0.0.1:{port}"
        environment = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        log = logs / f"{name.replace(' ', '-')}.log"
        with running(
            [*command, *way], log=log, environment=environment, until=f"{url}/health", folder=folder
        ):
            yield Server(name, url, "tei" if self.name == "TEI" else "rerank")

    def _command(self, directory: Path, port: int) -> tuple[list[object], Path | None]:
        kind = self.name.split()[-1]
        if self.name.startswith("infinity"):
            # Of a local model it loads ONNX files only where they lie beside the rest, in its own
            # folder.
            model = directory / "peer-model-flat"
            program = directory / "infinity/bin/infinity_emb"
            where = ("--device", "cpu", "--host", "127.0.0.1", "--port", port)
            started = ("v2", "--model-id", ".", "--engine", kind, *where, "--no-model-warmup")
            return [program, *started], model
        if self.name == "TEI":
            model = directory / "peer-model-flat"
            program = directory / "tei/text-embeddings-router"
            # Without these two it refuses what the workload asks for.
            bounds = ("--max-client-batch-size", 256, "--max-concurrent-requests", 4096)
            listen = ("--hostname", "127.0.0.1", "--port", port, "--prometheus-port", free_port())
            return [program, "--model-id", model, *listen, *bounds], None
        program = directory / "peers/bin/python"
        return [program, _HERE / "peer_server.py", kind, directory / "peer-model", port], None


_ONE_AT_A_TIME: tuple[Way, ...] = tuple(("--one", "--batch", str(n)) for n in (8, 32, 64))
PEERS = (
    Peer("sentence-transformers torch", ((), *_ONE_AT_A_TIME)),
    Peer("sentence-transformers onnx", ((), *_ONE_AT_A_TIME)),
    # As it comes it computes in BF16 on many CPUs, which is another engine than the others have.
    Peer("sentence-transformers openvino", ((), *_ONE_AT_A_TIME)),
    Peer(
        "sentence-transformers FP32 openvino",
        tuple(("--exact", *way) for way in _ONE_AT_A_TIME),
    ),
    Peer("flashrank", ((), ("--one",))),
    Peer("infinity torch", ((), ("--batch-size", "8"), ("--batch-size", "64"))),
    Peer("infinity optimum", ((), ("--batch-size", "8"), ("--batch-size", "64"))),
    Peer("TEI", ((), ("--max-batch-requests", "16"), ("--max-batch-requests", "32"))),
)


def up(
    peer: Peer, way: Way, directory: Path, logs: Path, stack: contextlib.ExitStack
) -> Server | None:
    """The peer, running until `stack` ends; None, with the cause on stderr, when it does not."""
    try:
        return stack.enter_context(peer.start(directory, logs, way))
    except OSError as error:
        print(f"{peer.name} is not there: {error}", file=sys.stderr)
    except RuntimeError as error:
        print(f"{peer.name} does not start: {error}", file=sys.stderr)
    return None


def tuned(directory: Path) -> dict[str, Way]:
    """The best way of each peer, as `--only tune` found it; nothing before that."""
    file = directory / "tuned.json"
    if not file.exists():
        return {}
    return {name: tuple(way) for name, way in json.loads(file.read_text()).items()}
