"""The Cohere SDK: both clients, both APIs, sync and async, and its error classes."""

import asyncio
import os

import cohere
import pytest

SERVER, LOCKED = os.environ["SERVER"], os.environ["LOCKED"]
TEXTS = ["b", "d d", "c"]
CLIENTS = [cohere.Client, cohere.ClientV2]


def connect(kind: type, url: str = SERVER, key: str = "anything") -> cohere.Client:
    return kind(api_key=key, base_url=url, max_retries=0)


@pytest.mark.parametrize("kind", CLIENTS)
def test_rerank(kind: type) -> None:
    found = connect(kind).rerank(model="demo", query="a", documents=TEXTS, top_n=2)
    assert [entry.index for entry in found.results] == [1, 2]
    assert 0.99 < found.results[1].relevance_score < found.results[0].relevance_score < 1
    assert found.id
    assert found.meta.api_version.version == ("2" if kind is cohere.ClientV2 else "1")
    assert found.meta.billed_units.search_units == 1


def test_documents_come_back_in_the_first_version() -> None:
    found = connect(cohere.Client).rerank(
        model="demo", query="a", documents=[{"text": text} for text in TEXTS], return_documents=True
    )
    assert [entry.document.text for entry in found.results] == ["d d", "c", "b"]


@pytest.mark.parametrize("kind", CLIENTS)
def test_long_documents_are_cut(kind: type) -> None:
    found = connect(kind).rerank(model="demo", query="a", documents=["b " * 100, "c"])
    assert len(found.results) == 2


def test_documents_are_cut_where_the_request_says() -> None:
    found = connect(cohere.ClientV2).rerank(
        model="demo", query="a", documents=["b b b", "b"], max_tokens_per_doc=1
    )
    assert found.results[0].relevance_score == found.results[1].relevance_score


@pytest.mark.parametrize("kind", [cohere.AsyncClient, cohere.AsyncClientV2])
def test_async(kind: type) -> None:
    async def ask() -> list[int]:
        async with connect(kind) as client:
            found = await client.rerank(model="demo", query="a", documents=TEXTS)
            return [entry.index for entry in found.results]

    assert asyncio.run(ask()) == [1, 2, 0]


@pytest.mark.parametrize("kind", CLIENTS)
def test_error_classes(kind: type) -> None:
    asked = {"model": "demo", "query": "a", "documents": TEXTS}
    with pytest.raises(cohere.NotFoundError) as refused:
        connect(kind).rerank(**asked | {"model": "rerank-v3.5"})
    assert "is not served here" in str(refused.value.body)
    with pytest.raises(cohere.UnprocessableEntityError):
        connect(kind).rerank(**asked | {"documents": []})
    with pytest.raises(cohere.UnauthorizedError):
        connect(kind, LOCKED).rerank(**asked)
    assert connect(kind, LOCKED, "secret-key").rerank(**asked).results
    with pytest.raises(cohere.ServiceUnavailableError):
        connect(kind, os.environ["NOT_READY"]).rerank(**asked)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_full_queue_is_too_many_requests(kind: type) -> None:
    with pytest.raises(cohere.TooManyRequestsError) as refused:
        connect(kind, os.environ["FULL"]).rerank(model="demo", query="a", documents=["c c", "d d"])
    assert int(refused.value.headers["retry-after"]) >= 1
