"""langchain-nvidia-ai-endpoints: NVIDIARerank."""

import asyncio
import os
import warnings

import pytest
from langchain_core.documents import Document
from langchain_nvidia_ai_endpoints import NVIDIARerank

SERVER, PROXY = os.environ["SERVER"], os.environ["PROXY"]
TEXTS = ["b", "d d", "", "c"]
BASES = [f"{SERVER}/v1", f"{SERVER}/v1/", SERVER, PROXY, f"{PROXY}/v1"]


def documents(texts: list[str]) -> list[Document]:
    return [Document(page_content=text) for text in texts]


def rerank(base: str, **options: object) -> NVIDIARerank:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NVIDIARerank(base_url=base, **options)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("model", [None, "demo", "an-alias"])
def test_base_urls_and_models(base: str, model: str | None) -> None:
    ranker = rerank(base, **({"model": model} if model else {}), top_n=3)
    found = ranker.compress_documents(documents(TEXTS), "a")
    assert [entry.page_content for entry in found] == ["d d", "c", "b"]
    scores = [entry.metadata["relevance_score"] for entry in found]
    assert scores == [12.0, 6.0, 5.0]


def test_the_default_model_is_the_real_one() -> None:
    with pytest.warns(UserWarning, match="Default model is set as: demo"):
        assert NVIDIARerank(base_url=f"{SERVER}/v1").model == "demo"


@pytest.mark.parametrize("base", BASES)
def test_async(base: str) -> None:
    ranker = rerank(base, model="demo")
    found = asyncio.run(ranker.acompress_documents(documents(TEXTS), "a"))
    assert [entry.page_content for entry in found] == ["d d", "c", "b", ""]


def test_more_documents_than_go_into_one_request() -> None:
    texts = ["b " * (1 + at % 20) for at in range(100)]
    ranker = rerank(SERVER, model="demo", top_n=100)
    found = ranker.compress_documents(documents(texts), "a")
    scores = [entry.metadata["relevance_score"] for entry in found]
    assert len(found) == 100
    assert scores == sorted(scores, reverse=True)
    one = rerank(SERVER, model="demo", top_n=100, max_batch_size=512)
    whole = one.compress_documents(documents(texts), "a")
    assert scores == [entry.metadata["relevance_score"] for entry in whole]


@pytest.mark.parametrize("truncate", [None, "NONE"])
def test_over_long_documents_are_refused_in_the_words_that_clients_know(
    truncate: str | None,
) -> None:
    ranker = rerank(SERVER, model="demo", **({"truncate": truncate} if truncate else {}))
    with pytest.raises(Exception, match=r"exceeds maximum allowed token size 32") as refused:
        ranker.compress_documents(documents(["b " * 100]), "a")
    assert "422" in str(refused.value)


def test_over_long_documents_are_cut() -> None:
    ranker = rerank(SERVER, model="demo", truncate="END")
    assert len(ranker.compress_documents(documents(["b " * 100, "c"]), "a")) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_errors_show_status_and_cause(is_async: bool) -> None:
    ranker = rerank(SERVER, model="other")
    with pytest.raises(Exception, match="'other' is not served here") as refused:
        if is_async:
            asyncio.run(ranker.acompress_documents(documents(TEXTS), "a"))
        else:
            ranker.compress_documents(documents(TEXTS), "a")
    assert "[404]" in str(refused.value)


def test_not_ready_and_keys() -> None:
    with pytest.raises(Exception, match=r"\[503\]"):
        rerank(os.environ["NOT_READY"], model="demo").compress_documents(documents(TEXTS), "a")
    locked = os.environ["LOCKED"]
    with pytest.raises(Exception, match=r"\[401\]"):
        rerank(locked, model="demo").compress_documents(documents(TEXTS), "a")
    ranker = rerank(locked, model="demo", nvidia_api_key="secret-key")
    assert len(ranker.compress_documents(documents(TEXTS), "a")) == 4
