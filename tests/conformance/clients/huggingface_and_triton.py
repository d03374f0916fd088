"""huggingface_hub's session as a client of TEI, and tritonclient over gRPC."""

import os

# It is also what lets the hub's session talk to a server of one's own.
os.environ["HF_HUB_OFFLINE"] = "0"

import numpy as np
import pytest
import tritonclient.grpc as triton
from huggingface_hub.utils import get_session
from tritonclient.utils import InferenceServerException

SERVER, GRPC = os.environ["SERVER"], os.environ["GRPC"]


def test_tei_as_the_hub_client_asks() -> None:
    asked = {"query": "a", "texts": ["b", "d d"], "raw_scores": True, "return_text": True}
    answer = get_session().post(f"{SERVER}/rerank", json=asked)
    assert answer.json() == [
        {"index": 1, "score": 12.0, "text": "d d"},
        {"index": 0, "score": 5.0, "text": "b"},
    ]
    assert int(answer.headers["x-compute-tokens"]) == 5


def test_the_hub_client_reads_what_is_served() -> None:
    info = get_session().get(f"{SERVER}/info").json()
    assert info["model_id"] == "demo"


def tensor(name: str, texts: list[str]) -> triton.InferInput:
    made = triton.InferInput(name, [len(texts), 1], "BYTES")
    made.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=np.object_))
    return made


def test_tritonclient() -> None:
    with triton.InferenceServerClient(GRPC) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("org_an_alias_1_5")
        metadata = client.get_model_metadata("demo", as_json=True)
        assert [entry["name"] for entry in metadata["outputs"]] == ["index", "logit", "token_count"]
        inputs = [tensor("query", ["a", "a"]), tensor("passage", ["b", "d d"])]
        for truncate in ("END", "none"):
            result = client.infer("demo", inputs, parameters={"truncate": truncate})
            assert result.as_numpy("index").tolist() == [[1], [0]]
            assert result.as_numpy("logit").tolist() == [[12.0], [5.0]]
            assert result.as_numpy("token_count").tolist() == [3, 2]
        wanted = [triton.InferRequestedOutput("logit")]
        result = client.infer("demo", inputs, outputs=wanted, request_id="mine")
        assert result.as_numpy("index") is None
        assert result.get_response().id == "mine"
        with pytest.raises(InferenceServerException) as refused:
            client.infer("other", inputs)
        assert "NOT_FOUND" in str(refused.value.status())
