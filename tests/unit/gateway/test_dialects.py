"""Every dialect: its answers, its errors, and whose request it is on a shared path."""

import json
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from reranker_gateway.api.dialects.table import ROUTES, choose, is_scoring, paths, template
from reranker_gateway.api.models import ModelNames
from reranker_gateway.errors import EngineError, ModelNotFoundError
from reranker_gateway.settings import DialectName, SettingsError, load_settings

Make = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]
QUERY = "w1"
#: The fake engine's logits are sums of ids; in this order: middle, highest, lowest, middle again.
TEXTS = ["w3", "w9 w9", "", "w3"]
ORDER = [1, 0, 3, 2]
DOCUMENTS = {"query": QUERY, "documents": TEXTS}
MODEL = {"model": "demo/bert"}
NIM = MODEL | {"query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS]}


def small_logits(batch: Any) -> Any:
    """Sums of ids, so small that their sigmoids differ."""
    return ((batch.input_ids * batch.attention_mask).sum(axis=1) / 100).astype("float32")


@pytest.fixture
async def client(
    gateway_of: Make, client_of: Make, engine: Any
) -> AsyncIterator[httpx.AsyncClient]:
    engine.score = small_logits
    async with client_of(gateway_of()) as connected:
        yield connected


@pytest.fixture
async def logits(client: httpx.AsyncClient) -> list[float]:
    found = (await client.post("/v1/ranking", json=NIM)).json()["rankings"]
    return [item["logit"] for item in sorted(found, key=lambda item: item["index"])]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


#: path, body, and how to read (index, score) from an answer.
ASKED = {
    "nim": ("/v1/ranking", NIM, lambda a: [(r["index"], r["logit"]) for r in a["rankings"]]),
    "hosted": (
        "/v1/retrieval/demo/bert/reranking",
        NIM,
        lambda a: [(r["index"], r["logit"]) for r in a["rankings"]],
    ),
    "cohere v1": (
        "/v1/rerank",
        DOCUMENTS | MODEL,
        lambda a: [(r["index"], r["relevance_score"]) for r in a["results"]],
    ),
    "cohere v2": (
        "/v2/rerank",
        DOCUMENTS | MODEL,
        lambda a: [(r["index"], r["relevance_score"]) for r in a["results"]],
    ),
    "jina": (
        "/v1/rerank",
        DOCUMENTS | MODEL | {"return_embeddings": False},
        lambda a: [(r["index"], r["relevance_score"]) for r in a["results"]],
    ),
    "vllm": (
        "/v1/rerank",
        DOCUMENTS | {"truncate_prompt_tokens": -1},
        lambda a: [(r["index"], r["relevance_score"]) for r in a["results"]],
    ),
    "tei": (
        "/rerank",
        {"query": QUERY, "texts": TEXTS},
        lambda a: [(r["index"], r["score"]) for r in a],
    ),
    "infinity": (
        "/rerank",
        DOCUMENTS,
        lambda a: [(r["index"], r["relevance_score"]) for r in a["results"]],
    ),
}


@pytest.mark.parametrize("name", ASKED)
async def test_the_same_order_everywhere_with_the_dialects_own_scores(
    client: httpx.AsyncClient, logits: list[float], name: str
) -> None:
    path, body, read = ASKED[name]
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-truncated-passages"] == "0"
    found = read(answer.json())
    assert [index for index, _ in found] == ORDER
    raw = name in {"nim", "hosted"}
    expected = [logits[index] if raw else sigmoid(logits[index]) for index in ORDER]
    assert [score for _, score in found] == pytest.approx(expected, rel=1e-6)


async def test_cohere(client: httpx.AsyncClient) -> None:
    asked = DOCUMENTS | MODEL | {"top_n": 2}
    first = (await client.post("/v1/rerank", json=asked | {"return_documents": True})).json()
    assert [item["document"] for item in first["results"]] == [{"text": "w9 w9"}, {"text": "w3"}]
    assert first["meta"]["api_version"] == {"version": "1"}
    assert first["meta"]["billed_units"] == {"search_units": 1}
    second = (await client.post("/v2/rerank", json=asked)).json()
    assert second["meta"]["api_version"] == {"version": "2"}
    assert second["id"]
    assert all(item.keys() == {"index", "relevance_score"} for item in second["results"])
    objects = {"documents": [{"text": text, "title": "t"} for text in TEXTS]}
    assert (await client.post("/v1/rerank", json=DOCUMENTS | MODEL | objects)).status_code == 200


async def test_cohere_cuts_documents_where_it_is_told_to(client: httpx.AsyncClient) -> None:
    asked = {"query": QUERY, "documents": ["w3", "w3 w9 w9"], "max_tokens_per_doc": 1}
    found = (await client.post("/v2/rerank", json=asked)).json()
    scores = [item["relevance_score"] for item in found["results"]]
    assert scores[0] == scores[1]
    assert found["meta"]["tokens"] == {"input_tokens": 2 * 5}


async def test_jina_gives_texts_back_unless_told_not_to(client: httpx.AsyncClient) -> None:
    asked = DOCUMENTS | MODEL | {"return_embeddings": False}
    found = (await client.post("/v1/rerank", json=asked)).json()
    assert found["results"][0]["document"] == {"text": "w9 w9"}
    assert found["usage"]["total_tokens"] > 0
    found = (await client.post("/v1/rerank", json=asked | {"return_documents": False})).json()
    assert "document" not in found["results"][0]


async def test_tei(client: httpx.AsyncClient, logits: list[float]) -> None:
    asked = {"query": QUERY, "texts": TEXTS, "raw_scores": True, "return_text": True}
    answer = await client.post("/rerank", json=asked)
    assert answer.json()[0] == {"index": 1, "score": logits[1], "text": "w9 w9"}
    assert answer.headers["x-compute-characters"] == str(len(QUERY) + sum(map(len, TEXTS)))
    for name in ("compute-tokens", "compute-time", "total-time", "queue-time", "inference-time"):
        assert answer.headers[f"x-{name}"].isdigit()
    info = (await client.get("/info")).json()
    assert info["model_id"] == "demo/bert"
    assert info["max_input_length"] == 32
    assert "reranker" in info["model_type"]
    assert (await client.get("/health")).status_code == 200


async def test_info_tells_the_batches_that_are_made(gateway_of: Make, client_of: Make) -> None:
    gateway = gateway_of()
    large = gateway.files.shapes.model_copy(update={"token_budget": 8192})
    gateway = replace(gateway, files=replace(gateway.files, shapes=large))
    async with client_of(gateway) as client:
        info = (await client.get("/info")).json()
    assert info["max_batch_tokens"] == 1024


async def test_infinity(client: httpx.AsyncClient, logits: list[float]) -> None:
    asked = DOCUMENTS | {"raw_scores": True, "return_documents": True, "top_n": 1}
    found = (await client.post("/rerank", json=asked)).json()
    assert found["object"] == "rerank"
    assert found["model"] == "demo/bert"
    assert found["id"].startswith("infinity-")
    assert found["results"] == [{"relevance_score": logits[1], "index": 1, "document": "w9 w9"}]


@pytest.mark.parametrize(
    "pairs",
    [
        {"text_1": QUERY, "text_2": TEXTS},
        {"text_1": [QUERY], "text_2": TEXTS},
        {"text_1": [QUERY] * 4, "text_2": TEXTS},
        {"data_1": QUERY, "data_2": TEXTS},
        {"queries": QUERY, "documents": TEXTS},
        {"queries": QUERY, "items": TEXTS},
    ],
)
async def test_vllm_scores_pairs_in_the_callers_order(
    client: httpx.AsyncClient, logits: list[float], pairs: dict[str, Any]
) -> None:
    for path in ("/score", "/v1/score"):
        found = (await client.post(path, json=pairs)).json()
        assert found["object"] == "list"
        assert [item["index"] for item in found["data"]] == [0, 1, 2, 3]
        scores = [item["score"] for item in found["data"]]
        assert scores == pytest.approx([sigmoid(logit) for logit in logits], rel=1e-6)
    raw = (await client.post("/score", json=pairs | {"use_activation": False})).json()
    assert [item["score"] for item in raw["data"]] == logits


async def test_each_pair_has_its_own_query(client: httpx.AsyncClient) -> None:
    queries = ["w7 w7", "w1", "w7 w7", "w5"]
    together = await client.post("/score", json={"text_1": queries, "text_2": TEXTS})
    alone = [
        (await client.post("/score", json={"text_1": query, "text_2": text})).json()["data"][0]
        for query, text in zip(queries, TEXTS, strict=True)
    ]
    assert [item["score"] for item in together.json()["data"]] == [item["score"] for item in alone]


@pytest.mark.parametrize(
    "pairs",
    [
        {},
        {"text_1": "w1"},
        {"text_1": "w1", "documents": ["w1"]},
        {"text_1": "w1", "text_2": []},
        {"text_1": [], "text_2": []},
        {"text_1": ["w1", "w2"], "text_2": ["w1"]},
        {"text_1": "w1", "text_2": "w2", "queries": "w1", "documents": "w2"},
        {"text_1": [["w1"]], "text_2": ["w1"]},
    ],
)
async def test_what_is_no_pair_is_400(client: httpx.AsyncClient, pairs: dict[str, Any]) -> None:
    refused = await client.post("/score", json=pairs)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "BadRequestError"
    assert refused.json()["error"]["code"] == 400


async def test_vllm_rerank(client: httpx.AsyncClient) -> None:
    asked = DOCUMENTS | {"user": "me", "top_n": 0}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        found = (await client.post(path, json=asked)).json()
        assert found["results"][0]["document"] == {"text": "w9 w9"}
        assert len(found["results"]) == 4
        assert found["id"].startswith("rerank-")


LONG = ["w3", "w9 " * 40]


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("/v1/ranking", {"truncate": "NONE"}, 422),
        ("/v1/ranking", {}, 422),
        ("/v1/ranking", {"truncate": "END"}, None),
        ("/v1/rerank", MODEL, None),
        ("/v2/rerank", MODEL, None),
        ("/rerank", {"texts": LONG}, None),
        ("/rerank", {"texts": LONG, "truncate": True}, None),
        ("/rerank", {"texts": LONG, "truncate": False}, 422),
        ("/rerank", {}, None),
        ("/rerank", {"user": "me"}, 400),
        ("/rerank", {"truncate_prompt_tokens": -1}, None),
        ("/rerank", {"truncate_prompt_tokens": 32}, None),
        ("/rerank", {"truncate_prompt_tokens": 31}, 400),
    ],
)
async def test_over_long_pairs(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], refusal: int | None
) -> None:
    if path == "/v1/ranking":
        asked = NIM | {"passages": [{"text": text} for text in LONG]} | body
    else:
        asked = {"query": QUERY} | ({} if "texts" in body else {"documents": LONG}) | body
    answer = await client.post(path, json=asked)
    if refusal is None:
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-truncated-passages"] == "1"
    else:
        assert answer.status_code == refusal
        if asked.get("truncate_prompt_tokens") != 31:
            assert "Input length 44 exceeds maximum allowed token size 32" in answer.text


NIM_KEYS = {"object", "message", "detail", "type", "code"}
#: path, a request that is refused, status, and the keys that the dialect's errors have.
REFUSED = [
    ("/v1/rerank", {"documents": TEXTS}, 422, {"message"}),
    ("/v2/rerank", {"query": "", "documents": TEXTS}, 422, {"message"}),
    ("/v2/rerank", {"query": QUERY, "documents": []}, 422, {"message"}),
    ("/v2/rerank", DOCUMENTS | {"top_n": -1}, 422, {"message"}),
    ("/v2/rerank", DOCUMENTS | {"rank_fields": ["title"]}, 422, {"message"}),
    ("/v1/rerank", DOCUMENTS | {"model": "other"}, 404, {"message"}),
    ("/v1/rerank", DOCUMENTS | {"model": "jina-x"}, 404, {"detail"}),
    ("/v1/rerank", DOCUMENTS | {"return_embeddings": True}, 422, {"detail"}),
    ("/v1/rerank", DOCUMENTS | {"model": "other", "user": "me"}, 404, {"error"}),
    ("/rerank", {"texts": []}, 422, {"error", "error_type"}),
    ("/rerank", {"query": QUERY, "texts": []}, 400, {"error", "error_type"}),
    ("/rerank", {"query": QUERY, "texts": ["w1"] * 513}, 422, {"error", "error_type"}),
    (
        "/rerank",
        {"query": QUERY, "texts": TEXTS, "truncation_direction": "Left"},
        422,
        {"error", "error_type"},
    ),
    ("/rerank", {"query": QUERY}, 400, {"error"}),
    ("/rerank", DOCUMENTS | {"truncation_side": "left"}, 400, {"error"}),
    ("/score", {"text_1": QUERY, "text_2": TEXTS, "truncation_side": "left"}, 400, {"error"}),
    ("/rerank", DOCUMENTS | {"model": "other"}, 404, {"error"}),
    ("/v2/rerank", DOCUMENTS | {"documents": ["w1"] * 513}, 413, {"message"}),
    ("/rerank", DOCUMENTS | {"documents": ["w1"] * 513}, 413, {"error"}),
    ("/score", {"text_1": QUERY, "text_2": ["w1"] * 513}, 413, {"error"}),
    ("/score", {"text_1": QUERY, "text_2": TEXTS, "model": "other"}, 404, {"error"}),
    ("/v1/retrieval/other/reranking", NIM, 404, NIM_KEYS),
    ("/v1/retrieval/a/b/reranking", NIM, 404, NIM_KEYS),
]


@pytest.mark.parametrize(("path", "body", "status", "keys"), REFUSED)
async def test_refusals_have_the_dialects_shape(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, keys: set[str]
) -> None:
    refused = await client.post(path, json=body)
    assert refused.status_code == status, refused.text
    assert refused.json().keys() == keys


def documents_with(count: int, fields: int) -> list[dict[str, str]]:
    more = {f"field{at}": f"https://example.com/[{at}]" for at in range(fields - 1)}
    return [{"text": f"w{at % 9}"} | more for at in range(count)]


@pytest.mark.parametrize(("count", "fields"), [(200, 4), (512, 2), (100, 8), (512, 8)])
async def test_documents_may_have_more_than_a_text(
    client: httpx.AsyncClient, count: int, fields: int
) -> None:
    asked = {"query": QUERY, "documents": documents_with(count, fields)}
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = await client.post(path, json=MODEL | asked)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["results"]) == count


@pytest.mark.parametrize("count", [513, 1500, 50_000])
@pytest.mark.parametrize(
    ("path", "field", "more", "status", "keys"),
    [
        ("/v1/ranking", "passages", {}, 413, NIM_KEYS),
        ("/v1/rerank", "documents", {}, 413, {"message"}),
        ("/v1/rerank", "documents", {"model": "jina-x"}, 413, {"detail"}),
        ("/v2/rerank", "documents", {"user": "me"}, 413, {"error"}),
        ("/rerank", "documents", {}, 413, {"error"}),
        ("/rerank", "texts", {}, 422, {"error", "error_type"}),
        ("/score", "text_2", {"text_1": QUERY}, 413, {"error"}),
    ],
)
async def test_however_many_passages_too_many_are_told_as_that(
    gateway_of: Make,
    client_of: Make,
    path: str,
    field: str,
    more: dict[str, Any],
    status: int,
    keys: set[str],
    count: int,
) -> None:
    nim = path == "/v1/ranking"
    texts = [{"text": "w1"} if nim else "w1"] * count
    query = {"text": QUERY} if nim else QUERY
    async with client_of(gateway_of(aliases=("jina-x",))) as client:
        refused = await client.post(path, json=MODEL | {"query": query, field: texts} | more)
    assert refused.status_code == status, refused.text
    assert refused.json().keys() == keys
    assert "at most 512" in refused.text
    if nim:
        assert refused.json()["type"] == "too_many_passages"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v2/rerank", [], "body: must be a JSON object"),
        ("/v2/rerank", {"query": 1}, "query: must be a string"),
        ("/v2/rerank", {"documents": "w1"}, "documents: must be a list"),
        ("/v2/rerank", {"documents": [1]}, 'documents.0: must be a string or {"text": "…"}'),
        (
            "/v2/rerank",
            {"documents": ["w1", {"title": "w1"}]},
            'documents.1: must be a string or {"text": "…"}',
        ),
        ("/v2/rerank", {"documents": []}, "documents: must not be empty"),
        ("/v2/rerank", {"top_n": -1}, "top_n: must be at least 1, not -1"),
        ("/v2/rerank", {"top_n": "1"}, "top_n: must be a whole number"),
        ("/v2/rerank", {"return_documents": "no"}, "return_documents: must be true or false"),
        ("/score", {"text_1": QUERY, "text_2": [1]}, "text_2: must be a string or a list of"),
        ("/score", {"text_1": QUERY}, "body: send text_1 and text_2, or"),
        ("/score", {"queries": QUERY, "documents": ["w1"] * 513}, "documents: 513 items"),
        (
            "/rerank",
            {"texts": TEXTS, "truncation_direction": "up"},
            "truncation_direction: must be 'Left', 'Right', 'left' or 'right', not 'up'",
        ),
        (
            "/rerank",
            {"texts": ["w1" + " " * 9999], "truncate": False},
            "texts: a text has more than 1024 characters, the most that this model can take; "
            "shorten it or set truncate to true",
        ),
        (
            "/rerank",
            {"documents": ["w1" + " " * 9999], "user": "me"},
            "documents: a text has more than 1024 characters, the most that this model can take; "
            "shorten it or set truncate_prompt_tokens to -1",
        ),
    ],
)
async def test_messages_name_field_value_and_remedy(
    client: httpx.AsyncClient, path: str, body: Any, message: str
) -> None:
    plain: dict[str, Any] = DOCUMENTS if path == "/v2/rerank" else {"query": QUERY}
    refused = await client.post(path, json=body if isinstance(body, list) else plain | body)
    told = refused.json().get("message") or refused.json()["error"]
    assert (told if isinstance(told, str) else told["message"]).startswith(message)


async def test_tei_tells_the_engines_failures_apart(client: httpx.AsyncClient, engine: Any) -> None:
    engine.failures.extend([EngineError("bad"), EngineError("bad")])
    failed = await client.post("/rerank", json={"query": QUERY, "texts": ["w1"]})
    assert failed.status_code == 424
    assert failed.json()["error_type"] == "Backend"


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/score"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"model": "\\ud800"}', 400),
        (b"[" * 5000, 400),
        (b"[" * 100_000, 413),
        (b'{"query": NaN}', 400),
        (b'{"query": 1e999999}', 422),
        (b"[]", 422),
        (b"null", 422),
    ],
)
async def test_garbage(client: httpx.AsyncClient, path: str, content: bytes, status: int) -> None:
    refused = await client.post(path, content=content)
    if path in {"/score", "/rerank"} and status == 422:
        status = 400
    assert refused.status_code == status, refused.text
    assert isinstance(refused.json(), dict)


async def test_not_ready_and_media_types_in_the_paths_own_words(
    gateway_of: Make, client_of: Make
) -> None:
    async with client_of(gateway_of(ready=False, dialects=("tei", "cohere"))) as client:
        refused = await client.post("/rerank", json={"query": QUERY, "texts": TEXTS})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "Unhealthy")
        assert refused.headers["retry-after"] == "1"
        refused = await client.post("/v2/rerank", json=DOCUMENTS)
        assert refused.json().keys() == {"message"}
        assert (await client.get("/health")).status_code == 503
    async with client_of(gateway_of()) as client:
        refused = await client.post("/v2/rerank", content="x", headers={"Content-Type": "text/x"})
        assert (refused.status_code, refused.json().keys()) == (415, {"message"})


async def test_what_is_refused_before_reading_has_the_paths_words_too(
    gateway_of: Make, client_of: Make, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "one").write_text("secret-key")
    async with client_of(gateway_of(api_keys_dir=keys)) as client:
        for path, shape in (("/v2/rerank", {"message"}), ("/score", {"error"})):
            refused = await client.post(path, json=DOCUMENTS)
            assert (refused.status_code, refused.json().keys()) == (401, shape)
        refused = await client.post("/v1/retrieval/a/b/reranking", json=DOCUMENTS)
        assert refused.json()["type"] == "authentication_error"
    # On /rerank vLLM and Infinity come first where they are on.
    for dialects, shape in (
        (("nim", "tei"), {"error", "error_type"}),
        (("nim", "infinity"), {"error"}),
        (("nim",), {"object", "message", "detail", "type", "code"}),
    ):
        async with client_of(gateway_of(api_keys_dir=keys, dialects=dialects)) as client:
            refused = await client.post("/rerank", json=DOCUMENTS)
            assert (refused.status_code, refused.json().keys()) == (401, shape)


async def test_tei_calls_what_is_late_overloaded(
    gateway_of: Make, client_of: Make, engine: Any
) -> None:
    engine.open.clear()
    async with client_of(gateway_of(dialects=("tei",), request_timeout_seconds=0.02)) as client:
        late = await client.post("/rerank", json={"query": QUERY, "texts": TEXTS})
    assert (late.status_code, late.json()["error_type"]) == (504, "Overloaded")
    engine.open.set()


async def test_openapi_says_who_needs_a_key(
    gateway_of: Make, client_of: Make, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "one").write_text("secret-key")
    async with client_of(gateway_of()) as client:
        schema = (await client.get("/openapi.json")).json()
        assert "security" not in schema
        assert {"401", "504"} <= schema["paths"]["/v1/ranking"]["post"]["responses"].keys()
    async with client_of(gateway_of(api_keys_dir=keys)) as client:
        given = {"x-api-key": "secret-key"}
        schema = (await client.get("/openapi.json", headers=given)).json()
    schemes = schema["components"]["securitySchemes"]
    assert [*schema["security"]] == [{name: []} for name in schemes]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    paths_of = {path: next(iter(item.values())) for path, item in schema["paths"].items()}
    assert paths_of["/v1/health/ready"]["security"] == []
    assert "401" not in paths_of["/v1/health/ready"]["responses"]
    assert "401" in paths_of["/v1/models"]["responses"]
    assert "security" not in paths_of["/v1/models"]


async def test_images_are_refused_by_their_field(client: httpx.AsyncClient) -> None:
    image = {"text": "", "image": "data:image/png;base64,AAAA"}
    refused = await client.post("/v1/ranking", json=NIM | {"passages": [image]})
    assert refused.status_code == 422
    assert "passages.0.image: " in refused.json()["message"]
    refused = await client.post("/v1/ranking", json=NIM | {"passages": [{}]})
    assert "passages.0.text: Field required" in refused.json()["message"]
    for path in ("/v1/rerank", "/rerank"):
        asked = MODEL | {"query": QUERY, "documents": [{"image": "https://example.com/x.png"}]}
        assert (await client.post(path, json=asked)).status_code == 422


async def test_hosted_paths_take_top_k_and_the_models_name(client: httpx.AsyncClient) -> None:
    for path in ("nvidia", "demo/bert"):
        answer = await client.post(f"/v1/retrieval/{path}/reranking", json=NIM | {"top_k": 1})
        assert len(answer.json()["rankings"]) == 1
    assert (await client.post("/v1/ranking", json=NIM | {"top_k": 1})).status_code == 422


async def test_dialects_can_be_switched_off(gateway_of: Make, client_of: Make) -> None:
    async with client_of(gateway_of(dialects=("jina", "vllm"))) as client:
        gone = await client.post("/v1/ranking", json=NIM)
        assert gone.status_code == 404
        assert "rank with POST /v1/rerank" in gone.json()["message"]
        # Without Cohere, Jina answers what nobody claims.
        found = (await client.post("/v1/rerank", json=DOCUMENTS | MODEL)).json()
        assert found["object"] == "list"
        assert (await client.get("/info")).status_code == 404
        assert (await client.get("/v1/health/ready")).status_code == 200
        schema = (await client.get("/openapi.json")).json()
        assert "/v1/ranking" not in schema["paths"]
        page = (await client.get("/docs")).text
        assert "/v1/ranking" not in page
        assert "/v1/rerank" in page


def test_settings_name_unknown_dialects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKER_DIALECTS", "nim, grpc")
    assert load_settings().dialects == ("nim", "grpc")
    monkeypatch.setenv("RERANKER_DIALECTS", "nim,kohere")
    with pytest.raises(SettingsError, match="RERANKER_DIALECTS"):
        load_settings()
    monkeypatch.setenv("RERANKER_DIALECTS", "nimm")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setenv("RERANKER_DIALECTS", ",")
    with pytest.raises(SettingsError, match="at least 1"):
        load_settings()


async def test_the_page_loads_nothing(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<script|<link|src=|https?://(?!localhost)", page.text)


async def test_every_example_of_the_page_works(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text.replace("&#x27;", "'").replace("&quot;", '"')
    calls = re.findall(r"localhost:8000(\S+) .*? -d '(.*?)'</pre>", page)
    assert {path for path, _ in calls} == {path for path in paths_of() if "{" not in path}
    for path, body in calls:
        answer = await client.post(path, content=body)
        assert answer.status_code == 200, (path, answer.text)
    shown = re.findall(r"<h3>(.+?): POST (\S+)</h3><pre>.*? -d '(.*?)'</pre>", page)
    for title, path, body in shown:
        routes = paths(DialectName.__args__)[path]
        assert choose(routes, json.loads(body)).dialect.title == title


async def test_examples_of_the_page_have_scheme_and_key(
    gateway_of: Make, client_of: Make, tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/one").write_text("secret")
    # Only told here; the listener is what speaks TLS.
    gateway = gateway_of(api_keys_dir=tmp_path / "keys", tls_dir=tmp_path)
    async with client_of(gateway) as client:
        page = (await client.get("/docs", headers={"x-api-key": "secret"})).text
    assert "http://localhost" not in page
    calls = re.findall(r"<pre>curl https://localhost:8000\S+ (.*?)</pre>", page)
    assert calls
    assert all("Authorization: Bearer KEY" in call for call in calls)
    assert "secret" not in page


def paths_of() -> set[str]:
    return {route.path for route in ROUTES}


async def test_license_version_and_manifest(client: httpx.AsyncClient) -> None:
    found = (await client.get("/v1/license")).json()
    content = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert found["content"] == content
    assert found["size"] == len(content.encode())
    assert found.keys() == {"name", "path", "sha", "size", "url", "type", "content"}
    assert (await client.get("/v1/version")).json().keys() == {"release", "api"}
    assert (await client.get("/v1/manifest")).json()["identity"]["runtime"] == "onnxruntime"


def test_nvidias_names_are_aliases_of_each_other() -> None:
    old, new = "nvidia/llama-3.2-nv-rerankqa-1b-v2", "nvidia/llama-nemotron-rerank-1b-v2"
    for names in (
        ModelNames(old, (), "x"),
        ModelNames("mine", (new,), "x"),
        ModelNames("mine", (), old),
    ):
        assert {old, new} <= set(names.all)
        # As hosted paths and litellm write it.
        names.check("nvidia/llama-3_2-nv-rerankqa-1b-v2")
        assert names.all[0] == names.served
    other = ModelNames("demo/bert", ("alias",), "demo/bert")
    assert other.all == ("demo/bert", "alias")
    with pytest.raises(ModelNotFoundError):
        other.check(new)


@pytest.mark.parametrize(
    ("path", "asked", "expected"),
    [
        ("/v1/rerank", DOCUMENTS, "Cohere"),
        ("/v1/rerank", DOCUMENTS | {"model": "rerank-v3.5"}, "Cohere"),
        ("/v1/rerank", DOCUMENTS | {"model": "jina-reranker-v2"}, "Jina"),
        ("/v1/rerank", DOCUMENTS | {"query": {"text": QUERY}}, "Jina"),
        ("/v1/rerank", DOCUMENTS | {"truncate_prompt_tokens": 1}, "VllmRerank"),
        ("/v1/rerank", DOCUMENTS | {"top_n": 0}, "VllmRerank"),
        ("/v1/rerank", DOCUMENTS | {"top_n": 1}, "Cohere"),
        ("/v1/rerank", DOCUMENTS | {"top_n": 0, "model": "rerank-v3.5"}, "Cohere"),
        ("/v2/rerank", DOCUMENTS | {"top_n": 0}, "VllmRerank"),
        ("/rerank", DOCUMENTS | {"top_n": 0}, "VllmRerank"),
        ("/v1/rerank", DOCUMENTS | {"max_chunks_per_doc": 1, "user": "x"}, "Cohere"),
        ("/v2/rerank", DOCUMENTS, "CohereV2"),
        ("/v2/rerank", DOCUMENTS | {"user": "x"}, "VllmRerank"),
        ("/rerank", {"texts": []}, "Tei"),
        ("/rerank", DOCUMENTS, "Infinity"),
        ("/rerank", DOCUMENTS | {"raw_scores": True}, "Infinity"),
        ("/rerank", DOCUMENTS | {"user": "x"}, "VllmRerank"),
        ("/rerank", [], "VllmRerank"),
        ("/v1/rerank", {"model": ["jina-"]}, "Cohere"),
    ],
)
def test_whose_request_it_is(path: str, asked: Any, expected: str) -> None:
    routes = paths({"nim", "cohere", "jina", "vllm", "tei", "infinity"})[path]
    assert type(choose(routes, asked).dialect).__name__ == expected


def test_what_counts_as_a_question() -> None:
    for path in ("/v1/ranking", "/rerank", "/v1/retrieval/a/reranking"):
        assert is_scoring(path)
    for path in ("/v1/ranking/", "/", "/v1/retrieval/a/b/c/reranking", "/v1/models"):
        assert not is_scoring(path)


def test_routes_have_templates() -> None:
    for path in ("/v1/retrieval/{model}/reranking", "/v1/retrieval/{org}/{model}/reranking"):
        assert template(path.format(org="a", model="b%2Fc")) == path
    for route in ROUTES:
        assert template(route.path) == route.path


def test_the_documented_table_is_the_one_that_decides() -> None:
    text = (ROOT / "docs/api-dialects.md").read_text(encoding="utf-8")
    section = text.split("\n## Who answers\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(/\S+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    documented = [
        (path, title, set(re.findall(r"`(.+?)`", claims))) for path, title, claims in rows
    ]
    assert documented == [
        (
            route.path,
            route.dialect.title,
            {
                *route.fields,
                *(f"{name}*" for name in route.models),
                *(sign.words for sign in route.signs),
            },
        )
        for route in ROUTES
    ]


async def test_openapi_names_every_path_and_body(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    assert paths_of() <= schema["paths"].keys()
    known = schema["components"]["schemas"].keys()
    for reference in re.findall(r'"#/components/schemas/(.+?)"', json.dumps(schema)):
        assert reference in known
