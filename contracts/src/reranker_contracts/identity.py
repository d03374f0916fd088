"""Engine identity: the sha256 of everything that changes an artefact's bytes.

Equal inputs give the same name, so the API server is the lock: whoever creates the object builds,
everybody else finds it.
"""

import hashlib
from typing import Literal

from pydantic import Field

from reranker_contracts.base import LARGEST, Document, canonical_json
from reranker_contracts.model import Scoring
from reranker_contracts.targets import EngineTarget


class Toolchain(Document):
    """Versions of what makes the bytes, as reported by the builder image itself."""

    recipe: int = Field(
        ge=1, le=LARGEST, description="raised when our own export code changes its output"
    )
    torch: str = Field(description="version of PyTorch")
    transformers: str = Field(description="version of transformers")
    tokenizers: str = Field(description="version of tokenizers, which writes tokenizer.json")
    peft: str = Field(description="version of PEFT, which merges adapters")
    onnx: str = Field(description="version of ONNX")
    onnxruntime: str = Field(description="version of ONNX Runtime")


class PrepareIdentity(Document):
    """Inputs of a prepared model (ONNX, tokeniser, probe scores)."""

    kind: Literal["prepared"] = Field(default="prepared", description="what this is")
    revision: str = Field(description="commit or `sha256:` tree hash of the source")
    adapter: str | None = Field(
        default=None, description="commit or tree hash of the LoRA adapter that is merged in"
    )
    max_length: int | None = Field(default=None, description="None: the model's own limit")
    scoring: Scoring | None = Field(
        default=None, description="what the user says about how the model scores"
    )
    probes: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="sha256 of the user's own probe set, by which engines are measured, too",
    )
    toolchain: Toolchain
    builder: str | None = Field(
        default=None,
        description="image that a service brought instead of the operator's own: what it makes "
        "is only for those who trust the same image",
    )


class EngineIdentity(EngineTarget):
    """Inputs of an engine: the prepared model, the target and what builds for it."""

    kind: Literal["engine"] = Field(default="engine", description="what this is")
    prepared: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the prepared model")
    platform: str = Field(default="linux/amd64", description="operating system and processor")
    version: str = Field(max_length=64, description="version of the runtime")
    recipe: int = Field(ge=1, description="of our own code for targets, see Runtimes")

    @property
    def target(self) -> EngineTarget:
        """What it is made for, without what it is made from."""
        return EngineTarget(**{name: getattr(self, name) for name in EngineTarget.model_fields})


def digest_of(identity: PrepareIdentity | EngineIdentity) -> str:
    """64 hex digits: sha256 of the identity's canonical JSON."""
    text = canonical_json(identity.model_dump(mode="json", by_alias=True))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
