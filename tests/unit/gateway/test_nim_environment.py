"""Settings by the names of NVIDIA's NIM, old and new."""

import re
from pathlib import Path

import pytest

from reranker_gateway.nim_environment import VARIABLES
from reranker_gateway.settings import Settings, SettingsError, load_settings

DOCS = Path(__file__).resolve().parents[3] / "docs/api-dialects.md"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NIM_HTTP_API_PORT": "9000"}, {"http_port": 9000}),
        ({"NIM_SERVER_PORT": "9001", "NIM_HTTP_API_PORT": "9000"}, {"http_port": 9001}),
        ({"NIM_SERVER_BIND_ADDR": "127.0.0.1:9"}, {"host": "127.0.0.1", "http_port": 9}),
        ({"NIM_BIND_ADDR": "[::]:9"}, {"host": "::", "http_port": 9}),
        ({"NIM_GRPC_BIND_ADDR": "0.0.0.0:9"}, {"grpc_port": 9}),
        ({"NIM_TRITON_GRPC_PORT": "7"}, {"grpc_port": 7}),
        ({"NIM_SERVED_MODEL_NAME": "old", "NIM_SERVER_SERVED_MODEL_NAME": "new"},
         {"served_name": "new"}),
        ({"NIM_REQUEST_TIMEOUT_S": "30"}, {"request_timeout_seconds": 30.0}),
        ({"NIM_LOG_LEVEL": "trace"}, {"log_level": "DEBUG"}),
        ({"NIM_NUM_TOKENIZERS": "4"}, {"tokenizer_threads": 4}),
        ({"NIM_SERVER_GRPC_MAX_DECODING_MESSAGE_BYTES": "8192"}, {"grpc_max_message_bytes": 8192}),
        ({"NIM_SERVED_MODEL_NAME": " "}, {}),
        # Ours come first.
        ({"RERANKER_HTTP_PORT": "1", "NIM_SERVER_BIND_ADDR": "x:9"}, {"host": "x", "http_port": 1}),
    ],
)  # fmt: skip
def test_names_of_every_release(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, object]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = load_settings().model_dump()
    assert found == Settings.model_construct().model_dump() | expected


@pytest.mark.parametrize("value", ["here", "0.0.0.0:x", "0.0.0.0:99999"])
def test_a_wrong_value_is_told_by_the_name_that_was_used(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NIM_SERVER_BIND_ADDR", value)
    with pytest.raises(SettingsError, match="NIM_SERVER_BIND_ADDR="):
        load_settings()


def test_the_documented_table_is_the_one_that_is_read() -> None:
    section = DOCS.read_text(encoding="utf-8").split("\n## Environment of the NIM\n")[1]
    documented = re.findall(r"^\| `(NIM_\w+)` \| .* \| `(\w+)`", section, re.MULTILINE)
    assert documented == [
        (variable, "RERANKER_" + target.rpartition(":")[2].upper())
        for variable, target in VARIABLES
    ]
