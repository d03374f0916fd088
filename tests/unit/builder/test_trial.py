"""Work on strangers' files in a child: values and reasons come back, harm does not."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from engine_builder import trial
from engine_builder.errors import StageError
from engine_builder.trial import on_trial
from reranker_contracts import StageReason


def test_values_and_stage_errors_pass() -> None:
    assert on_trial("x", lambda: {"pid": os.getpid()})["pid"] != os.getpid()

    def refuse() -> None:
        raise StageError(StageReason.MAX_LENGTH_TOO_SHORT, "too short")

    with pytest.raises(StageError, match="too short") as caught:
        on_trial("x", refuse)
    assert caught.value.reason is StageReason.MAX_LENGTH_TOO_SHORT


def _loop() -> None:
    while True:
        pass


def _backtrack() -> None:
    tokenizer = Tokenizer(models.BPE())
    pattern = Regex(r"^(\s*\w+\s*\w*)*$")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    while True:
        tokenizer.encode("ab " * 100 + "!")


class Panic(BaseException):
    """As Rust's, which is no Exception."""


def _panic() -> None:
    raise Panic("index out of range\nmore")


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (_loop, "1 s of processor time"),
        (_backtrack, "tokenizer.json"),
        (lambda: bytearray(1 << 30) and None, "512 MiB of memory"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "reading it takes more"),
        (_panic, "Panic: index out of range)"),
        (lambda: {}["x"], "KeyError"),
        (lambda: threading.Event().wait(), "1 s in all"),
    ],
    ids=["loop", "regex", "memory", "killed", "panic", "error", "wait"],
)
def test_harm_ends_as_an_invalid_model(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any], says: str
) -> None:
    if says == "1 s in all":
        monkeypatch.setattr(trial, "PATIENCE", 1)
    with pytest.raises(StageError) as caught:
        on_trial("tokenizer.json", work, cpu_seconds=1, memory=512 << 20)
    assert caught.value.reason is StageReason.MODEL_INVALID
    assert says in caught.value.message
    assert caught.value.message.isprintable()
