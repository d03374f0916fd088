"""A stage result always fits the termination message, or the kubelet cuts it into rubbish."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.identities import TOOLCHAIN

from reranker_contracts import ResolvedModel, Runtimes, Stage, StageReason, StageResult
from reranker_contracts.stages import MESSAGE_LIMIT


def _result(message: str, name: str = "tiny") -> StageResult:
    return StageResult(
        stage=Stage.RESOLVE,
        ok=True,
        reason=StageReason.SUCCEEDED,
        message=message,
        seconds=1.25,
        resolved=ResolvedModel(
            revision="0123abcd", name=name, architecture="Bert", family="bert", max_length=512,
            toolchain=TOOLCHAIN,
            runtimes=Runtimes(recipe=1, onnxruntime="1.31"),
        ),
    )  # fmt: skip


@given(st.text(max_size=6000))
@example("\x00" * 5000)
@example('"\\' * 4000)
@example("日本" * 3000)
@example("🚀" * 3000)
def test_any_message_fits_and_the_rest_survives(message: str) -> None:
    result = _result(message)
    text = result.to_message()
    assert len(text.encode()) <= MESSAGE_LIMIT
    read = StageResult.model_validate_json(text)
    assert read.model_copy(update={"message": ""}) == result.model_copy(update={"message": ""})
    if len(result.to_json()) <= MESSAGE_LIMIT:
        assert read.message == message


def test_a_cut_message_keeps_its_beginning() -> None:
    read = StageResult.model_validate_json(_result("x" * 5000).to_message())
    assert len(read.message) > 3000


@pytest.mark.parametrize("letter", ["й", "日", "🚀"])
def test_a_cut_message_still_says_something(letter: str) -> None:
    assert len(StageResult.model_validate_json(_result(letter * 3000).to_message()).message) > 200


def test_the_longest_name_leaves_room() -> None:
    text = _result("x" * 5000, name="🚀" * 256).to_message()
    assert len(text.encode()) <= MESSAGE_LIMIT


def test_only_the_message_can_be_long() -> None:
    """The other texts are bounded, so cutting the message is enough."""
    with pytest.raises(ValidationError):
        _result("found", name="n" * 5000)


@pytest.mark.parametrize(
    "said",
    [
        '"seconds": Infinity',
        '"seconds": NaN',
        '"seconds": 1e300',
        '"sizeBytes": 1e30',
        '"sizeBytes": 9223372036854775808',
        '"sizeBytes": -1',
        '"parity": {"pairs": 1, "queries": 1, "kendallTau": NaN, "ndcg10Delta": 0, '
        '"maxAbsDiff": 0}',
        '"parity": {"pairs": 1, "queries": 1, "kendallTau": 1, "ndcg10Delta": -Infinity, '
        '"maxAbsDiff": 0}',
        '"parity": {"pairs": 1, "queries": 1, "kendallTau": 1, "ndcg10Delta": 0, '
        '"maxAbsDiff": Infinity}',
        '"parity": {"pairs": 1e30, "queries": 1, "kendallTau": 1, "ndcg10Delta": 0, '
        '"maxAbsDiff": 0}',
    ],
)
def test_numbers_that_no_status_can_hold_are_refused(said: str) -> None:
    text = '{"stage": "validate", "ok": true, "reason": "Succeeded", "message": "", "seconds": 1}'
    assert StageResult.model_validate_json(text).ok
    with pytest.raises(ValidationError):
        StageResult.model_validate_json(f"{text[:-1]}, {said}}}")
