"""The published engine as the gateway reads it: manifest, served model, tokeniser.

The pod's init container has checked every hash (`reranker-gateway verify`), so serving only parses.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from tokenizers import Tokenizer

from reranker_contracts import ArtefactManifest, EngineIdentity, ServedModel, Shapes
from reranker_contracts.manifest import MANIFEST
from reranker_contracts.parity import PROBES, REFERENCE, ProbeSet, Reference
from reranker_contracts.targets import Runtime

#: Of one batch on CPUs. Larger ones are no faster there: a call costs next to nothing, and what one
#: layer leaves for the next no longer fits the caches. But they are padded twice as much, since
#: fewer of those that wait are as long. Measured by `bench/serving`.
_CPU_TOKENS: dict[Runtime, int] = {"onnxruntime": 1024, "openvino": 2048}

D = TypeVar("D", ArtefactManifest, ServedModel, ProbeSet, Reference)


class EngineInvalidError(Exception):
    """The engine directory cannot be served; the message names the file and what is wrong."""


@dataclass(frozen=True)
class EngineFiles:
    """A parsed engine directory."""

    manifest: ArtefactManifest
    identity: EngineIdentity
    shapes: Shapes
    model: ServedModel
    tokenizer: Tokenizer
    #: What the engine is to be measured by, when that was not done where it was built.
    proof: tuple[ProbeSet, Reference] | None = None

    @property
    def max_length(self) -> int:
        """Longest input in tokens that both the model and the engine allow."""
        return min(self.model.max_length, self.shapes.max_length)

    def token_budget(self, wanted: int | None) -> int:
        """Padded tokens in one batch; what is compiled takes no more than it was built for."""
        built_for = self.shapes.token_budget
        if wanted is None:
            if self.identity.accelerator != "cpu":
                return built_for
            fastest = _CPU_TOKENS.get(self.identity.runtime, built_for)
            return min(built_for, max(fastest, self.max_length))
        return min(wanted, built_for) if self.shapes.profiles else wanted


def load_engine(directory: Path) -> EngineFiles:
    """Parse the engine in `directory`. Raises EngineInvalidError."""
    manifest = _document(ArtefactManifest, directory / MANIFEST)
    if not isinstance(manifest.identity, EngineIdentity):
        raise EngineInvalidError(f"{directory} holds a prepared model, not an engine")
    if manifest.shapes is None:
        raise EngineInvalidError(f"{directory / MANIFEST} has no shapes; build the engine again")
    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise EngineInvalidError(f"{path} cannot be read: {error}") from error
    return EngineFiles(
        manifest=manifest,
        identity=manifest.identity,
        shapes=manifest.shapes,
        model=_document(ServedModel, directory / "model.json"),
        tokenizer=tokenizer,
        proof=_proof(directory, manifest),
    )


def _proof(directory: Path, manifest: ArtefactManifest) -> tuple[ProbeSet, Reference] | None:
    if not {PROBES, REFERENCE} <= {entry.path for entry in manifest.files}:
        return None
    probes = _document(ProbeSet, directory / PROBES)
    reference = _document(Reference, directory / REFERENCE)
    if len(probes.pairs()) != len(reference.logits):
        raise EngineInvalidError(
            f"{directory / REFERENCE} has {len(reference.logits)} scores for "
            f"{len(probes.pairs())} pairs; build the engine again"
        )
    return probes, reference


def _document(kind: type[D], path: Path) -> D:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EngineInvalidError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineInvalidError(f"{path} is malformed: {where}: {first['msg']}") from error
