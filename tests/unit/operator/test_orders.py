"""Annotations about rollouts are read alike, and none of them harms."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker_operator import names
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.rollouts.orders import Order, aborted, order, promoted, retry_of


def _service(**annotations: str) -> RerankerService:
    keys = {"promote": names.PROMOTE, "abort": names.ABORT, "retry": names.RETRY}
    body: dict[str, Any] = {
        "apiVersion": "reranker.dev/v1alpha1",
        "kind": "RerankerService",
        "metadata": {
            "name": "rank", "namespace": "shop", "uid": "u", "resourceVersion": "1",
            "generation": 1,
            "annotations": {keys[name]: value for name, value in annotations.items()},
        },
        "spec": {"model": {"source": "hf://org/tiny"}},
    }  # fmt: skip
    return RerankerService.model_validate(body)


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        ("abc", [0, 1, 2, 3]),
        (" abc\n", [0, 1, 2, 3]),
        ("abc/1", [0, 1]),
        (" abc / 1 \n", [0, 1]),
        ("abc/0", [0]),
        ("abd", []),
        ("abc/", []),
        ("abc/²", []),
        ("abc/٣", []),
        ("abc/" + "9" * 5000, []),
        ("abc/-1", []),
        ("abc/+1", []),
        ("abc/1_0", []),
        ("abc/1/1", []),
        ("", []),
    ],
)
def test_a_promotion_goes_up_to_a_step(value: str, steps: list[int]) -> None:
    service = _service(promote=value)
    assert [step for step in range(4) if promoted(service, "abc", step)] == steps


@pytest.mark.parametrize("value", ["abc", " abc", "abc\n", "\tabc \r\n"])
def test_space_around_a_revision_is_none_of_it(value: str) -> None:
    assert aborted(_service(abort=value), "abc")
    assert not aborted(_service(abort=value), "ab")
    assert order(_service(promote=value), names.PROMOTE) == Order("abc", None)
    assert retry_of(_service(retry=value)) == "abc"


def test_what_is_long_or_empty() -> None:
    assert retry_of(_service()) is retry_of(_service(retry=" \n")) is None
    assert len(retry_of(_service(retry="1" * 100_000)) or "") == 8
    assert not aborted(_service(abort="abc/1"), "abc")
    assert not aborted(_service(), "")


@given(st.text(max_size=30), st.integers(0, 20))
def test_no_text_breaks_anything(text: str, step: int) -> None:
    for value in (text, f"abc/{text}"):
        service = _service(promote=value, abort=value, retry=value)
        promoted(service, "abc", step)
        aborted(service, "abc")
        retry_of(service)
