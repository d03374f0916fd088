"""Somebody else's words in our messages."""

import pytest

from reranker_operator.core.wording import advise, quote


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            'Head "https://robot:s3cr3t@registry.example/v2/tiny": 401',
            'Head "https://registry.example/v2/tiny": 401',
        ),
        (
            "GET https://blobs.example/model?X-Amz-Signature=abc&X-Amz-Credential=def failed",
            "GET https://blobs.example/model failed",
        ),
        ("the token hf_abcdefghijklmnop was refused", "the token … was refused"),
        ("Authorization: Bearer abc.def.ghi", "Authorization: Bearer …"),
        ("login failed: password=hunter2, user=shop", "login failed: password=…, user=shop"),
        ('secret "hub" not found', 'secret "hub" not found'),
        (
            "couldn't find key token in Secret shop/hub",
            "couldn't find key token in Secret shop/hub",
        ),
        ("two\n  lines\tand more", "two lines and more"),
    ],
)
def test_secrets_are_not_passed_on(said: str, kept: str) -> None:
    assert quote(said) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[2Kgone", "red and gone"),
        ("\x1b]0;title\x07here \x1b]8;;http://x\x1b\\there", "here there"),
        ("a\x00b\x08c\x7fd\x9be", "abcde"),
        ("file \u202egnp.exe\u202c is \u2066bad\u2069", "file gnp.exe is bad"),
        ("lone \ud800 half", "lone half"),
        ("token hf_\x00abcdefghijklmnop", "token …"),
        ("模型 не найден 🙂 café", "模型 не найден 🙂 café"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_passed_on(said: str, kept: str) -> None:
    assert quote(said).replace("  ", " ") == kept
    assert quote(said).isprintable()


def test_long_words_keep_what_and_why_and_end_before_the_remedy() -> None:
    said = quote("failed to pull " + "x" * 1000 + ": not found")
    assert (said[:14], said[-11:]) == ("failed to pull", ": not found")
    assert len(said) == 400
    assert quote(None) == ""
    assert advise("it failed. ", "mend it") == "it failed; mend it"
