"""nvidia-haystack: NvidiaRanker, and Haystack's own ranker for TEI."""

import os

import pytest
from haystack import Document
from haystack.components.rankers import HuggingFaceTEIRanker
from haystack.utils import Secret
from haystack_integrations.components.rankers.nvidia import NvidiaRanker

SERVER = os.environ["SERVER"]
DOCUMENTS = [Document(content=text) for text in ("b", "d d", "c")]


@pytest.mark.parametrize("base", [f"{SERVER}/v1", f"{SERVER}/v1/"])
@pytest.mark.parametrize("key", [None, Secret.from_token("anything")])
def test_nvidia(base: str, key: Secret | None) -> None:
    ranker = NvidiaRanker(model="demo", api_url=base, api_key=key, top_k=2)
    ranker.warm_up()
    found = ranker.run(query="a", documents=DOCUMENTS)["documents"]
    assert [(entry.content, entry.score) for entry in found] == [("d d", 12.0), ("c", 6.0)]


def test_nvidia_truncates() -> None:
    ranker = NvidiaRanker(model="demo", api_url=f"{SERVER}/v1", api_key=None, truncate="END")
    ranker.warm_up()
    long = [Document(content="b " * 100), *DOCUMENTS]
    assert len(ranker.run(query="a", documents=long)["documents"]) == 4


def test_tei() -> None:
    ranker = HuggingFaceTEIRanker(url=SERVER, top_k=2, token=None)
    found = ranker.run(query="a", documents=DOCUMENTS)["documents"]
    assert [entry.content for entry in found] == ["d d", "c"]
    assert 0.99 < found[1].score < found[0].score < 1
    raw = HuggingFaceTEIRanker(url=SERVER, raw_scores=True, token=None)
    scores = [entry.score for entry in raw.run(query="a", documents=DOCUMENTS)["documents"]]
    assert scores == [12.0, 6.0, 5.0]
    with pytest.raises(Exception, match="422"):
        HuggingFaceTEIRanker(url=SERVER, token=None).run(
            query="a", documents=[Document(content="c")] * 513
        )
