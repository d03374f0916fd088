"""A whole gateway in the test's own process, with a small real tokeniser.

Nothing of ours is replaced. The engine, the one thing behind a network, is `FakeEngine`: it scores
a row by the sum of its token ids, so a row's score does not depend on the batch around it, and it
can be held, made to fail, or taken away.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from support.activator_pod import Pod
from support.identities import publish_engine
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from reranker_contracts import (
    ServedModel,
)
from reranker_gateway.activator.answers import Room
from reranker_gateway.activator.app import Activator
from reranker_gateway.activator.server import build_activator
from reranker_gateway.activator.settings import ActivatorSettings
from reranker_gateway.app import create_app
from reranker_gateway.engine import Batch
from reranker_gateway.engine_files import load_engine
from reranker_gateway.errors import EngineUnavailableError
from reranker_gateway.gateway import Gateway, build_gateway
from reranker_gateway.readiness import Readiness
from reranker_gateway.settings import Settings

MAX_LENGTH = 32
WORDS = [f"w{number}" for number in range(200)]


def sum_of_ids(batch: Batch) -> np.ndarray:
    return (batch.input_ids * batch.attention_mask).sum(axis=1).astype(np.float32)


class FakeEngine:
    """Implements `reranker_gateway.engine.Engine`."""

    def __init__(self) -> None:
        self.loaded = True
        self.batches: list[Batch] = []
        self.failures: deque[Exception] = deque()
        self.score = sum_of_ids
        self.open = asyncio.Event()
        self.open.set()

    async def ready(self) -> bool:
        return self.loaded

    async def infer(self, batch: Batch) -> np.ndarray:
        self.batches.append(batch)
        await self.open.wait()
        if not self.loaded:
            raise EngineUnavailableError("away")
        if self.failures:
            raise self.failures.popleft()
        return self.score(batch)

    async def metrics(self) -> str:
        return 'nv_inference_count{model="reranker"} 3\n'

    async def close(self) -> None:
        self.loaded = False


def bert_tokenizer() -> Tokenizer:
    """One id per word, and BERT's pair template as the tokeniser's own post-processor."""
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def bert_model() -> ServedModel:
    return ServedModel.model_validate(
        {
            "name": "demo/bert",
            "architecture": "BertForSequenceClassification",
            "family": "bert",
            "maxLength": MAX_LENGTH,
            "padId": 0,
            "template": {
                "pieces": [
                    {"kind": "special", "ids": [2]},
                    {"kind": "query"},
                    {"kind": "special", "ids": [3]},
                    {"kind": "passage", "typeId": 1},
                    {"kind": "special", "ids": [3], "typeId": 1},
                ]
            },
            "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        }
    )


@pytest.fixture
def tokenizer() -> Tokenizer:
    return bert_tokenizer()


@pytest.fixture
def model() -> ServedModel:
    return bert_model()


@pytest.fixture
def engine_dir(tmp_path: Path) -> Path:
    """A published engine without weights."""
    root = tmp_path / "engine"
    (root / "repository/reranker/1").mkdir(parents=True)
    (root / "repository/reranker/config.pbtxt").write_text('name: "reranker"\n')
    (root / "repository/reranker/1/model.onnx").write_bytes(b"weights")
    (root / "model.json").write_text(bert_model().to_json())
    bert_tokenizer().save(str(root / "tokenizer.json"))
    publish_engine(root, MAX_LENGTH)
    return root


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def gateway_of(engine_dir: Path, engine: FakeEngine) -> Callable[..., Gateway]:
    """Builds a gateway that is ready, with settings of the test's choice."""

    def build(*, ready: bool = True, **settings: Any) -> Gateway:
        gateway = build_gateway(
            Settings(engine_dir=engine_dir, **settings), load_engine(engine_dir), engine
        )
        gateway.readiness.ready = ready
        return gateway

    return build


@pytest.fixture
def client_of() -> Callable[[Gateway], httpx.AsyncClient]:
    """A client of the API; the lifespan does not run, so readiness is what the test sets."""

    def connect(gateway: Gateway) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(create_app(gateway))
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")

    return connect


@pytest.fixture
async def watch() -> AsyncIterator[Callable[[Readiness], None]]:
    """Lets readiness follow the engine until the test ends, as the lifespan would."""
    tasks: list[asyncio.Task[None]] = []

    def follow(readiness: Readiness) -> None:
        tasks.append(asyncio.create_task(readiness.watch()))

    yield follow
    for task in tasks:
        task.cancel()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Any]:
    """Lets the event loop run until a condition holds; the test's time limit is the deadline."""

    async def wait(condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 (any condition, not only events)
            await asyncio.sleep(0)

    return wait


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """A valid request, with changes."""

    def make(**changes: Any) -> dict[str, Any]:
        request = {
            "model": "demo/bert",
            "query": {"text": "w1 w2"},
            "passages": [{"text": "w3"}, {"text": "w9 w9"}, {"text": "w3"}],
        }
        return request | changes

    return make


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    found = Pod()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    server.close()


@pytest.fixture
async def activator_of(pod: Pod) -> AsyncIterator[Callable[..., Activator]]:
    made: list[Activator] = []

    def build(room: int | None = None, **settings: Any) -> Activator:
        found = build_activator(ActivatorSettings(backend_url=pod.url, **settings))
        made.append(found if room is None else replace(found, room=Room(room)))
        return made[-1]

    yield build
    for activator in made:
        activator.hold.close()
        await activator.backend.close()
