"""An engine's name must not depend on how its inputs were written down."""

import json

from reranker_contracts import EngineIdentity, PrepareIdentity, Toolchain, digest_of
from reranker_operator.api.v1alpha1 import RerankerEngineSpec

TOOLCHAIN = Toolchain(
    recipe=1,
    torch="2.6",
    transformers="5.23",
    tokenizers="0.23",
    peft="0.21",
    onnx="1.19",
    onnxruntime="1.31",
)
PREPARE = PrepareIdentity(revision="0123abcd", toolchain=TOOLCHAIN)
ENGINE = EngineIdentity(
    prepared=digest_of(PREPARE),
    runtime="onnxruntime",
    precision="fp32",
    accelerator="cpu",
    max_batch_size=64,
    version="1.31",
    recipe=1,
)


def test_digests_are_pinned() -> None:
    """A change here renames every engine in every cluster: each is then built again."""
    assert digest_of(PREPARE)[:16] == "6e1c09a1eb201221"
    assert digest_of(ENGINE)[:16] == "9b532f2b6a048438"


def test_the_order_of_keys_does_not_matter() -> None:
    pairs = reversed(ENGINE.model_dump(by_alias=True).items())
    assert digest_of(EngineIdentity.model_validate(dict(pairs))) == digest_of(ENGINE)


def test_every_field_changes_the_digest() -> None:
    changes = {
        "prepared": "f" * 64, "accelerator": "nvidia", "platform": "linux/arm64",
        "max_batch_size": 8, "version": "1.32",
        "runtime": "openvino", "precision": "int8", "compute_capability": "8.9", "recipe": 2,
    }  # fmt: skip
    digests = {digest_of(ENGINE.model_copy(update={key: new})) for key, new in changes.items()}
    assert len(digests | {digest_of(ENGINE)}) == len(changes) + 1
    assert digest_of(PREPARE.model_copy(update={"max_length": 512})) != digest_of(PREPARE)


def test_the_digest_survives_the_api_server() -> None:
    """Absent values are not stored, defaults are filled in: both read back to the same identity."""
    spec = {
        "digest": digest_of(ENGINE),
        "modelName": "tiny",
        "source": {"source": "hf://org/tiny"},
        "prepare": json.loads(PREPARE.to_json()),
        "identity": json.loads(ENGINE.to_json()),
        "build": {"image": "builder:1"},
        "store": {},
    }
    assert "maxLength" not in spec["prepare"]
    sparse = RerankerEngineSpec.model_validate(spec)
    for defaulted in (spec["identity"], spec["prepare"]):
        defaulted.pop("kind")
    filled = RerankerEngineSpec.model_validate(sparse.to_dict())
    for read in (sparse, filled, RerankerEngineSpec.model_validate(spec)):
        assert digest_of(read.prepare) == digest_of(PREPARE)
        assert digest_of(read.identity) == digest_of(ENGINE)
