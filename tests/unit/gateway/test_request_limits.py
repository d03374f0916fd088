"""Who may ask, until when, and what of it is told."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reranker_contracts import ArtefactManifest, write_manifest
from reranker_contracts.integrity import file_entries
from reranker_gateway.api_keys import ApiKeys, ApiKeysError
from reranker_gateway.callers import Callers
from reranker_gateway.errors import UnauthorizedError

Make = Callable[..., Any]


async def test_what_is_late_is_dropped_unscored(
    gateway_of: Make, client_of: Make, engine: Any, body: Make, eventually: Make
) -> None:
    gateway = gateway_of()
    async with client_of(gateway) as client:
        engine.open.clear()
        texts = [{"text": f"w{at} " * 10} for at in range(20)]
        late = await client.post(
            "/v1/ranking", json=body(passages=texts), headers={"X-Request-Timeout-Ms": "30"}
        )
        assert (late.status_code, late.json()["type"]) == (504, "timeout")
        assert "0.03 s" in late.json()["message"]
        engine.open.set()
        await eventually(lambda: gateway.drain.active == 0)
        assert (await client.post("/v1/ranking", json=body())).status_code == 200
    # At most what was in the engine when time was over, and the other request.
    assert sum(batch.rows for batch in engine.batches) <= 8 + 2


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "abc", "", "99999999999", "86400001"])
async def test_a_timeout_that_is_none_is_422(
    gateway_of: Make, client_of: Make, body: Make, wrong: str
) -> None:
    async with client_of(gateway_of()) as client:
        refused = await client.post(
            "/v1/ranking", json=body(), headers={"X-Request-Timeout-Ms": wrong}
        )
    assert refused.status_code == 422
    shown = repr(wrong[:20])
    assert refused.json()["message"].startswith(f"x-request-timeout-ms: {shown} is not a number")


async def test_the_servers_own_limit(
    gateway_of: Make, client_of: Make, engine: Any, body: Make
) -> None:
    engine.open.clear()
    async with client_of(gateway_of(request_timeout_seconds=0.02)) as client:
        headers = {"X-Request-Timeout-Ms": "60000"}
        late = await client.post("/v1/ranking", json=body(), headers=headers)
    assert late.status_code == 504
    engine.open.set()


async def test_truncated_passages_are_told(gateway_of: Make, client_of: Make, body: Make) -> None:
    async with client_of(gateway_of()) as client:
        cut = body(passages=[{"text": "w1 " * 40}, {"text": "w2"}, {"text": "w3 " * 50}])
        answer = await client.post("/v1/ranking", json=cut | {"truncate": "END"})
        whole = await client.post("/v1/ranking", json=body())
    assert answer.headers["x-truncated-passages"] == "2"
    assert whole.headers["x-truncated-passages"] == "0"


@pytest.fixture
def keys_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "search").write_text("secret-of-search\n")
    (folder / "..data").mkdir()
    return folder


async def test_without_a_key_nothing_but_health_is_answered(
    gateway_of: Make, client_of: Make, body: Make, keys_dir: Path, engine: Any
) -> None:
    async with client_of(gateway_of(api_keys_dir=keys_dir)) as client:
        for path in (
            "/v1/models",
            "/v1/metrics",
            "/openapi.json",
            "/nothing",
            "/v1/health/../models",
        ):
            assert (await client.get(path)).status_code == 401
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": "Basic secret-of-search"},
            {"x-api-key": ""},
            {"x-api-key": "wrong", "Authorization": "Bearer secret-of-search"},
        ]
        for headers in wrong:
            refused = await client.post("/v1/ranking", json=body(), headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["object"] == "error"
        assert engine.batches == []
        assert (await client.get("/v1/health/ready")).status_code == 200
        for headers in (
            {"authorization": "bearer secret-of-search"},
            {"X-API-Key": "secret-of-search"},
        ):
            assert (
                await client.post("/v1/ranking", json=body(), headers=headers)
            ).status_code == 200


async def test_keys_never_get_into_the_log(
    gateway_of: Make, client_of: Make, body: Make, keys_dir: Path, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    async with client_of(gateway_of(api_keys_dir=keys_dir)) as client:
        for key in ("secret-of-search", "secret-of-nobody"):
            headers = {"Authorization": f"Bearer {key}"}
            await client.post("/v1/ranking", json=body(), headers=headers)
    ours = [one for one in caplog.records if one.name.startswith("reranker")]
    logged = json.dumps([one.__dict__ for one in ours], default=str)
    assert '"caller": "search"' in logged
    assert "secret-of" not in logged


def test_keys_come_and_go_without_a_restart(keys_dir: Path) -> None:
    now = [0.0]
    keys = ApiKeys(keys_dir, lambda: now[0])
    (keys_dir / "next").write_text("secret-of-next")
    assert keys.owner(b"secret-of-next") is None
    now[0] += 2
    assert keys.owner(b"secret-of-next") == "next"
    assert keys.owner(b"secret-of-search") == "search"
    (keys_dir / "search").unlink()
    # A file that holds no key does not keep the others' changes from counting.
    (keys_dir / "empty").write_text("\n")
    now[0] += 2
    assert keys.owner(b"secret-of-search") is None
    assert keys.owner(b"secret-of-next") == "next"
    assert keys.owner(b"") is None
    (keys_dir / "next").unlink()
    now[0] += 2
    assert keys.owner(b"secret-of-next") is None


def test_nobody_starts_without_the_keys_that_were_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ApiKeysError, match=r"RERANKER_API_KEYS_DIR: .* cannot be read"):
        ApiKeys(tmp_path / "missing", lambda: 0.0)
    (tmp_path / "large").write_bytes(b"x" * 5000)
    with pytest.raises(ApiKeysError, match="holds no keys"):
        ApiKeys(tmp_path, lambda: 0.0)


def test_made_up_names_share_a_fixed_number_of_shares() -> None:
    callers = Callers(None, "X-Caller")
    shares = {callers.admit("/", [(b"x-caller", str(at).encode())]) for at in range(5000)}
    assert 200 < len(shares) <= 256
    assert callers.admit("/", [(b"host", b"x")]) == ""
    # Of another process they are other ones: nobody can aim.
    other = Callers(None, "X-Caller")
    names = [[(b"x-caller", str(at).encode())] for at in range(20)]
    assert [callers.admit("/", name) for name in names] != [
        other.admit("/", name) for name in names
    ]


def test_a_name_does_not_replace_a_key(keys_dir: Path) -> None:
    callers = Callers(ApiKeys(keys_dir, lambda: 0.0), "X-Caller")
    with pytest.raises(UnauthorizedError):
        callers.admit("/v1/ranking", [(b"x-caller", b"search")])
    asked = [(b"x-caller", b"somebody"), (b"x-api-key", b"secret-of-search")]
    assert callers.admit("/v1/ranking", asked) == "search"


async def test_one_callers_full_queue_is_not_anothers(
    gateway_of: Make, client_of: Make, engine: Any, body: Make, eventually: Make
) -> None:
    engine.open.clear()
    gateway = gateway_of(max_queue_tokens=180)
    greedy, modest = {"X-Caller": "greedy"}, {"X-Caller": "modest"}
    async with client_of(gateway) as client:
        many = body(passages=[{"text": f"w{at} " * 10} for at in range(20)])
        running = asyncio.create_task(client.post("/v1/ranking", json=many, headers=greedy))
        await eventually(lambda: len(engine.batches) == 2)
        refused = await client.post("/v1/ranking", json=body(), headers=greedy)
        assert refused.status_code == 429
        small = body(passages=[{"text": "w5"}])
        other = asyncio.create_task(client.post("/v1/ranking", json=small, headers=modest))
        await eventually(lambda: gateway.drain.active == 2)
        engine.open.set()
        assert (await other).status_code == 200
        assert (await running).status_code == 200


async def test_the_best_window_of_a_long_passage_counts(
    gateway_of: Make, client_of: Make, engine: Any, body: Make
) -> None:
    """Scores are sums of ids: the window with the largest words is the best one."""
    late = " ".join(["w1"] * 60 + ["w9"] * 20)
    early = " ".join(["w9"] * 20 + ["w1"] * 60)
    long = body(passages=[{"text": late}, {"text": early}, {"text": "w5"}], truncate="END")
    async with client_of(gateway_of()) as client:

        async def logits(**headers: str) -> dict[int, float]:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = await client.post("/v1/ranking", json=long, headers=sent)
            assert answer.status_code == 200
            told.append(answer.headers["x-truncated-passages"])
            return {entry["index"]: entry["logit"] for entry in answer.json()["rankings"]}

        told: list[str] = []
        cut, windows = await logits(), await logits(X_Long_Passages="chunk")
        # 27 tokens fit beside query and specials.
        assert cut[1] - cut[0] == 20 * 8
        assert windows[0] == windows[1] == cut[1]
        assert windows[2] == cut[2]
        assert told == ["2", "0"]
        wrong = await client.post(
            "/v1/ranking", json=long, headers={"X-Long-Passages": "summarise"}
        )
        assert wrong.status_code == 422
        assert "x-long-passages: 'summarise' is neither" in wrong.json()["message"]
        refused = await client.post(
            "/v1/ranking", json=long | {"truncate": "NONE"}, headers={"X-Long-Passages": "chunk"}
        )
        assert refused.status_code == 422
        text = (await client.get("/v1/metrics")).text
    assert "reranker_passages_total 6.0" in text
    async with client_of(gateway_of(long_passages="chunk")) as client:
        told = []
        answer = await client.post("/v1/ranking", json=long)
        assert answer.headers["x-truncated-passages"] == "0"
        answer = await client.post("/v1/ranking", json=long, headers={"X-Long-Passages": "CUT"})
        assert answer.headers["x-truncated-passages"] == "2"


async def test_windows_are_bounded_over_all_queries_of_a_request(
    gateway_of: Make, client_of: Make
) -> None:
    pairs = 24
    asked = {
        "text_1": [f"w{at} " + "w1 " * 20 for at in range(pairs)],
        "text_2": ["w2 " * 1000] * pairs,
        "truncate_prompt_tokens": -1,
    }
    async with client_of(gateway_of()) as client:
        chunk = {"X-Long-Passages": "chunk"}
        # 10 tokens are left: more than a quarter of 32, and the 24 make 125 windows each.
        refused = await client.post("/score", json=asked, headers=chunk)
        assert refused.status_code == 400
        assert "more than 2048 windows" in refused.text
        # With less than that nothing is made of them.
        asked["text_1"] = [f"{query} w1 w1 w1" for query in asked["text_1"]]
        cut = await client.post("/score", json=asked, headers=chunk)
    assert cut.status_code == 200
    assert cut.json()["usage"]["prompt_tokens"] == pairs * 32
    assert cut.headers["x-truncated-passages"] == str(pairs)


async def test_a_pair_of_nothing_is_told_by_the_callers_number(
    gateway_of: Make, client_of: Make, engine_dir: Path
) -> None:
    bare = json.loads((engine_dir / "model.json").read_text())
    bare["template"]["pieces"] = [{"kind": "query"}, {"kind": "passage"}]
    (engine_dir / "model.json").write_text(json.dumps(bare))
    manifest = ArtefactManifest.model_validate_json((engine_dir / "manifest.json").read_bytes())
    files = tuple(file_entries(engine_dir))
    write_manifest(engine_dir, manifest.model_copy(update={"files": files}))
    score = {"text_1": ["w2", " ", "w1"], "text_2": ["w3", "", "w3"]}
    pairs = {"queries": [" "], "documents": ["w3", ""]}
    nim = {"query": {"text": " "}, "passages": [{"text": "w3"}, {"text": ""}]}
    for path, asked, words in (
        ("/score", score, "text_2.1: it and text_1 hold"),
        ("/score", pairs, "documents.1: it and queries hold"),
        ("/rerank", {"query": " ", "texts": ["w3", ""]}, "texts.1: it and query hold"),
        ("/v2/rerank", {"query": " ", "documents": ["w3", ""]}, "documents.1: it and query hold"),
        ("/v1/ranking", {"model": "demo/bert"} | nim, "passages.1.text: it and query.text hold"),
    ):
        async with client_of(gateway_of()) as client:
            answer = await client.post(path, json=asked)
        assert answer.status_code == (400 if path == "/score" else 422)
        assert words in answer.text
