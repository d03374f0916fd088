"""An API server with the worlds of `support.rr_worlds`, and the command line in front of it."""

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.rr_worlds import NOW, WORLDS, Json

from kubectl_rr.cli import main
from kubectl_rr.read import Objects, assemble
from kubectl_rr.snapshot import Snapshot

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "test",
    "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
}
_KIND_AND_NAME = re.compile(r"^/(api|apis/[^/]+)/[^/]+/(namespaces/shop/)?")


class Handler(http.server.BaseHTTPRequestHandler):
    """JSON in, JSON out; what is answered is the server's business."""

    server: "JsonServer"

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_PATCH(self) -> None:
        self.do_POST()

    def _answer(self, body: Any) -> None:
        self.server.keys.append(self.headers["Authorization"])
        status, answer = self.server.answer(self.path.partition("?")[0], body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


class JsonServer(http.server.ThreadingHTTPServer):
    """Answers with what `answer` says."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, Any], tuple[int, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        #: What each request had as Authorization.
        self.keys: list[str | None] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, Any], tuple[int, Any]]], JsonServer]]:
    """Starts servers that end with the test."""
    running: list[JsonServer] = []

    def start(answer: Callable[[str, Any], tuple[int, Any]]) -> JsonServer:
        server = JsonServer(answer)
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@dataclass
class Api:
    """What the API server holds, by plural; `refused` may not be read."""

    world: dict[str, list[Json]] = field(default_factory=lambda: WORLDS["ready"])
    refused: set[str] = field(default_factory=set)
    kubeconfig: Path = Path()
    answer_all: tuple[int, Any] | None = None
    #: Changes that were sent.
    patches: list[Any] = field(default_factory=list)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if body is not None:
            self.patches.append(body)
        if self.answer_all is not None:
            return self.answer_all
        plural, _, name = _KIND_AND_NAME.sub("", path).partition("/")
        if plural in self.refused:
            return 403, {"message": f"{plural} is forbidden\x1b[2J"}
        found = self.world.get(plural, [])
        if not name:
            return 200, {"items": found, "metadata": {}}
        for raw in found:
            if raw["metadata"]["name"] == name:
                return 200, raw
        return 404, {"message": f'{plural} "{name}" not found', "details": {"name": name}}


@pytest.fixture
def api(
    tmp_path: Path,
    serve: Callable[[Callable[[str, Any], tuple[int, Any]]], JsonServer],
) -> Api:
    """A cluster with one service, which is ready until the test says otherwise."""
    api = Api()
    url = f"http://127.0.0.1:{serve(api.answer).port}"
    config = KUBECONFIG | {"clusters": [{"name": "c", "cluster": {"server": url}}]}
    api.kubeconfig = tmp_path / "kubeconfig"
    api.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
    return api


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def rr(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `kubectl rr` in this process."""

    def run(*arguments: str, api: Api | None = None) -> Done:
        options = [] if api is None else [f"--kubeconfig={api.kubeconfig}"]
        try:
            code = main([*arguments[:1], *options, *arguments[1:]])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def snapshot() -> Callable[[dict[str, list[Json]]], Snapshot]:
    """The snapshot of a world at its own time."""

    def take(world: dict[str, list[Json]]) -> Snapshot:
        kinds = ("rerankerservices", "rerankerengines", "deployments", "pods")
        return assemble(Objects(*(world.get(kind, []) for kind in kinds)), NOW)

    return take
