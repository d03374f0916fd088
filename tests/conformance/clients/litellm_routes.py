"""litellm: every rerank route that leads to a server of one's own."""

import asyncio
import os

import litellm
import pytest

SERVER = os.environ["SERVER"]
TEXTS = ["b", "d d", "c"]
#: Route, and whether its scores are logits.
ROUTES = {
    "nvidia_nim/demo": True,
    "nvidia_nim/ranking/demo": True,
    "cohere/demo": False,
    "jina_ai/demo": False,
    "jina_ai/jina-demo": False,
    "infinity/demo": False,
    "huggingface/demo": False,
    "hosted_vllm/demo": False,
}


def ask(route: str, **options: object) -> list[dict]:
    # On /rerank its requests are Infinity's to the letter, but it cannot read Infinity's answers.
    server = f"{SERVER}/v1" if route.startswith("hosted_vllm") else SERVER
    options = {"api_base": server, "api_key": "anything"} | options
    return litellm.rerank(model=route, query="a", documents=TEXTS, **options).results


@pytest.mark.parametrize("route", ROUTES)
def test_order_and_scores(route: str) -> None:
    found = ask(route)
    assert [entry["index"] for entry in found] == [1, 2, 0]
    scores = [entry["relevance_score"] for entry in found]
    if ROUTES[route]:
        assert scores == [12.0, 6.0, 5.0]
    else:
        assert 0.99 < scores[2] < scores[1] < scores[0] < 1


@pytest.mark.parametrize("route", [route for route in ROUTES if "huggingface" not in route])
def test_top_n(route: str) -> None:
    assert [entry["index"] for entry in ask(route, top_n=2)] == [1, 2]


@pytest.mark.parametrize(
    "route", ["jina_ai/jina-demo", "infinity/demo", "cohere/demo", "hosted_vllm/demo"]
)
def test_texts(route: str) -> None:
    found = ask(route, return_documents=True)
    assert [entry["document"]["text"] for entry in found] == ["d d", "c", "b"]


@pytest.mark.parametrize("route", ["cohere/demo", "jina_ai/jina-demo", "nvidia_nim/ranking/demo"])
def test_async(route: str) -> None:
    found = asyncio.run(
        litellm.arerank(
            model=route, query="a", documents=TEXTS, api_base=SERVER, api_key="anything"
        )
    )
    assert [entry["index"] for entry in found.results] == [1, 2, 0]


def test_names_with_dots() -> None:
    assert len(ask("nvidia_nim/org/an_alias-1_5")) == 3
    assert len(ask("nvidia_nim/ranking/org/an_alias-1.5")) == 3


@pytest.mark.parametrize(
    "route", ["cohere/other", "jina_ai/jina-other", "nvidia_nim/ranking/other"]
)
def test_unknown_models_are_an_error(route: str) -> None:
    with pytest.raises(Exception, match="is not served here"):
        ask(route)
