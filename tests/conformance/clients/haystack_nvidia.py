"""nvidia-haystack: NvidiaRanker; huggingface-api-haystack: its ranker for TEI."""

import os

import pytest
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.nvidia import NvidiaRanker

SERVER = os.environ["SERVER"]
DOCUMENTS = [Document(content=text) for text in ("b", "d d", "c")]


@pytest.mark.parametrize("key", [None, Secret.from_token("anything")])
def test_nvidia(key: Secret | None) -> None:
    ranker = NvidiaRanker(model="demo", api_url=f"{SERVER}/v1", api_key=key, top_k=2)
    ranker.warm_up()
    found = ranker.run(query="a", documents=DOCUMENTS)["documents"]
    assert [(entry.content, entry.score) for entry in found] == [("d d", 12.0), ("c", 6.0)]


def test_nvidia_truncates() -> None:
    ranker = NvidiaRanker(model="demo", api_url=f"{SERVER}/v1", api_key=None, truncate="END")
    ranker.warm_up()
    long = [Document(content="b " * 100), *DOCUMENTS]
    assert len(ranker.run(query="a", documents=long)["documents"]) == 4


@pytest.mark.parametrize("base", [f"{SERVER}/v1/", f"{SERVER}/ranking/v1"])
def test_a_wrong_url_is_told_the_right_one(base: str) -> None:
    ranker = NvidiaRanker(model="demo", api_url=base, api_key=None)
    ranker.warm_up()
    with pytest.raises(ValueError, match="rank with POST /v1/ranking"):
        ranker.run(query="a", documents=DOCUMENTS)


def test_tei() -> None:
    found = _tei().run(query="a", documents=DOCUMENTS)["documents"]
    assert [entry.content for entry in found] == ["d d", "c", "b"]
    assert 0.99 < found[2].score < found[1].score < found[0].score < 1
    raw = _tei(raw_scores=True).run(query="a", documents=DOCUMENTS)["documents"]
    assert [entry.score for entry in raw] == [12.0, 6.0, 5.0]
    many = [Document(content=f"c {at}") for at in range(513)]
    with pytest.raises(Exception, match="422"):
        _tei().run(query="a", documents=many)


def _tei(**options: object) -> HuggingFaceTEIRanker:
    return HuggingFaceTEIRanker(url=SERVER, token=None, max_retries=0, **options)
