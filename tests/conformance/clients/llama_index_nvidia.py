"""llama-index-postprocessor-nvidia-rerank: NVIDIARerank."""

import os
import warnings

import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank

SERVER, PROXY = os.environ["SERVER"], os.environ["PROXY"]
TEXTS = ["b", "d d", "c"]


def nodes(texts: list[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in texts]


@pytest.mark.parametrize("base", [f"{SERVER}/v1", f"{SERVER}/v1/", f"{PROXY}/v1"])
@pytest.mark.parametrize("model", [None, "demo"])
def test_rerank(base: str, model: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranker = NVIDIARerank(base_url=base, model=model, top_n=2)
    found = ranker.postprocess_nodes(nodes(TEXTS), query_bundle=QueryBundle("a"))
    assert [(entry.text, entry.score) for entry in found] == [("d d", 12.0), ("c", 6.0)]


def test_more_nodes_than_go_into_one_request() -> None:
    ranker = NVIDIARerank(base_url=f"{SERVER}/v1", model="demo", top_n=150)
    found = ranker.postprocess_nodes(
        nodes(["b " * (1 + at % 20) for at in range(150)]), query_bundle=QueryBundle("a")
    )
    scores = [entry.score for entry in found]
    assert len(scores) == 150
    assert scores == sorted(scores, reverse=True)


def test_truncate() -> None:
    long = nodes(["b " * 100, "c"])
    ranker = NVIDIARerank(base_url=f"{SERVER}/v1", model="demo", truncate="END")
    assert len(ranker.postprocess_nodes(long, query_bundle=QueryBundle("a"))) == 2
    ranker = NVIDIARerank(base_url=f"{SERVER}/v1", model="demo", truncate="NONE")
    with pytest.raises(Exception, match="422"):
        ranker.postprocess_nodes(long, query_bundle=QueryBundle("a"))
