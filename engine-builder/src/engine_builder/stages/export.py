"""export: from a model's files to ONNX, `model.json`, tokenizer, probe pairs and FP32 scores.

Runs on any CPU node. Everything later stages and the gateway need about the model is written here
once, so nothing after it imports torch or transformers.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from engine_builder.adapter import CONFIG as ADAPTER_CONFIG
from engine_builder.adapter import read_adapter
from engine_builder.artefacts import (
    MODEL,
    ONNX,
    ONNX_DATA,
    TOKENIZER,
    write_document,
)
from engine_builder.batches import Tensors, in_batches, pad_batch
from engine_builder.errors import StageError, defect
from engine_builder.facts import ModelFacts, effective_length, read_facts
from engine_builder.fast_tokenizer import ReadTokenizer, encode_pairs, read_tokenizer
from engine_builder.files import check_size, make_output, read_metadata
from engine_builder.onnx_engine import OnnxEngine
from engine_builder.onnx_weights import gather_weights
from engine_builder.outcome import Outcome
from engine_builder.pair_template import Tokens
from engine_builder.probes import add_near_ties, load_probes
from engine_builder.progress import Progress, human_size
from engine_builder.sources import read_provenance
from engine_builder.sources.selection import INDEX, select_files
from engine_builder.torch_model import CrossEncoder, export_onnx, load_cross_encoder, score
from engine_builder.user_probes import UserProbes
from engine_builder.weights import count_parameters
from reranker_contracts import Scoring, ServedModel, StageReason
from reranker_contracts.parity import PROBES, REFERENCE, ProbeSet, Reference, share_told_apart

#: A padded batch and its logits.
Sample = tuple[Tensors, NDArray[np.float32]]

#: Bytes of FP32 weights that still fit into one protobuf file, with room for the graph.
INLINE_LIMIT = 1_900_000_000

_BATCH = 8
#: Largest difference of a logit between PyTorch and the exported graph, both FP32.
_TOLERANCE = 1e-3
#: Share of the probe pairs whose order a model must have an opinion on.
_MIN_TOLD_APART = 0.1


def export(
    source: Path,
    out: Path,
    *,
    max_length: int | None,
    scoring: Scoring | None = None,
    adapter: Path | None = None,
    own_probes: UserProbes | None = None,
    progress: Progress,
    inline_limit: int = INLINE_LIMIT,
) -> Outcome:
    """Write a prepared model to `out`; raises StageError for a model that cannot be prepared.

    `scoring` overrules the model's own files, the LoRA `adapter` is merged into its weights. On
    `own_probes` engines will be measured as on the built-in ones.
    """
    facts = read_facts(source, scoring)
    _check_adapter(source, adapter)
    length = effective_length(facts, max_length)
    names = {entry.name for entry in source.iterdir()}
    selection = select_files(names, lambda: read_metadata(source / INDEX))
    for name in selection.metadata:
        check_size(name, (source / name).lstat().st_size)
    parameters = count_parameters([source / name for name in selection.weights])
    make_output(out)
    _check_space(out, parameters, inline=parameters * 4 <= inline_limit)
    probes = load_probes()
    with progress.step("tokenizer and pair template"):
        tokenizer = read_tokenizer(source, facts, length, probes)
        if own_probes is not None:
            probes = own_probes.added_to(probes)
        served = _describe(source, facts, length, tokenizer)
        rows = encode_pairs(tokenizer.text, served, probes.pairs())
    with progress.step(f"loading {parameters / 1e6:.1f} M parameters"):
        model = load_cross_encoder(
            source,
            facts,
            inputs=served.inputs,
            labels=tokenizer.labels,
            parameters=parameters,
            adapter=adapter,
        )
    with progress.step(f"reference scores of {len(rows)} pairs"):
        logits = _reference(model, served, rows, progress)
        _check_reference(probes, logits)
    with progress.step("reference scores of near ties"):
        probes, logits = _with_near_ties(
            model, served, tokenizer.text, probes=probes, logits=logits, progress=progress
        )
    samples = _samples(model, served, rows)
    with progress.step("export to ONNX"):
        _write_onnx(model, served, rows, out, inline=parameters * 4 <= inline_limit)
    # Two copies of large weights, this one and ONNX Runtime's, need not be in memory.
    del model
    with progress.step("comparing the graph with PyTorch"):
        _check_graph(samples, served, out / ONNX)
    (out / TOKENIZER).write_text(tokenizer.text, encoding="utf-8")
    write_document(out / MODEL, served)
    write_document(out / PROBES, probes)
    write_document(out / REFERENCE, Reference(logits=tuple(logits)))
    size = sum(entry.stat().st_size for entry in out.iterdir())
    return Outcome(
        f"exported {served.name} ({facts.architecture}) for {length} tokens, {human_size(size)}",
        size_bytes=size,
    )


def _check_adapter(source: Path, adapter: Path | None) -> None:
    if adapter is not None:
        read_adapter(adapter)
    if (source / ADAPTER_CONFIG).exists():
        # transformers would load it by itself, pickled weights included.
        raise StageError(
            StageReason.ADAPTER_INVALID,
            f"{ADAPTER_CONFIG} lies beside the model's files; put the adapter into a folder of its "
            "own and name it as the adapter",
        )


def _check_space(out: Path, parameters: int, *, inline: bool) -> None:
    """Before the work, not after it. Large weights are written twice, one copy is removed."""
    needed = parameters * 4 * (1 if inline else 2)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise StageError(
            StageReason.STORE_FULL,
            f"{out}: {human_size(free)} free, the export of {parameters / 1e6:.1f} M parameters "
            f"takes {human_size(needed)}; make room there, or set TMPDIR to a folder that has it",
        )


def _describe(
    source: Path, facts: ModelFacts, length: int, tokenizer: ReadTokenizer
) -> ServedModel:
    """The `model.json` that fits model and tokenizer."""
    inputs: list[Literal["input_ids", "attention_mask", "token_type_ids"]]
    inputs = ["input_ids", "attention_mask"]
    if facts.token_types:
        inputs.append("token_type_ids")
    return ServedModel(
        name=read_provenance(source).name,
        architecture=facts.architecture,
        family=facts.family.name,
        max_length=length,
        pad_id=tokenizer.pad_id,
        pad_side=facts.pad_side,
        template=tokenizer.template,
        inputs=tuple(inputs),
        activation=facts.activation,
    )


def _write_onnx(
    model: CrossEncoder, served: ServedModel, rows: Sequence[Tokens], out: Path, *, inline: bool
) -> None:
    """Export and check the graph; large weights go into the one file ONNX_DATA."""
    example = pad_batch(rows[:3], served.pad_id, served.inputs, served.pad_side)
    if inline:
        export_onnx(model, example, out / ONNX)
    else:
        scratch = Path(tempfile.mkdtemp(prefix="onnx-", dir=out))
        export_onnx(model, example, scratch / ONNX)
        gather_weights(scratch / ONNX, out / ONNX, ONNX_DATA)
        shutil.rmtree(scratch)
    try:
        onnx.checker.check_model(str(out / ONNX))
    except onnx.checker.ValidationError as error:
        raise defect(
            StageReason.EXPORT_FAILED, f"the exported graph is not valid: {str(error)[:300]}"
        ) from error


def _samples(model: CrossEncoder, served: ServedModel, rows: Sequence[Tokens]) -> list[Sample]:
    """A single short row and a padded batch of mixed lengths, and what PyTorch makes of them."""
    by_length = sorted(rows, key=lambda row: len(row.ids))
    batches = [
        pad_batch(batch, served.pad_id, served.inputs, served.pad_side)
        for batch in ([by_length[0]], [by_length[0], by_length[-1], *by_length[::200]])
    ]
    return [(tensors, score(model, tensors)) for tensors in batches]


def _check_graph(samples: Sequence[Sample], served: ServedModel, path: Path) -> None:
    """Compare the graph in `path` with what PyTorch made of the same batches."""
    try:
        engine = OnnxEngine(path)
        answers = [engine.run(tensors, served.labels) for tensors, _ in samples]
    except StageError as error:
        # Its words are those on a finished engine, with another remedy.
        problem = error.message.rpartition("; ")[0]
        raise StageError(
            StageReason.EXPORT_FAILED,
            f"with this config.json the model does not export: {problem}; take over the base "
            "model's config.json, or report it with the model's name",
        ) from error
    for (_, expected), found in zip(samples, answers, strict=True):
        worst = float(np.abs(expected - found).max())
        if not worst <= _TOLERANCE:
            raise defect(
                StageReason.EXPORT_FAILED,
                f"the exported graph differs from PyTorch by {worst:.2g} in a logit, at most "
                f"{_TOLERANCE} is allowed",
            )


def _reference(
    model: CrossEncoder, served: ServedModel, rows: Sequence[Tokens], progress: Progress
) -> list[float]:
    """FP32 logits in the order of `rows`; batches are by length, so that little is padding."""
    logits = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    for number, batch in enumerate(in_batches(order, _BATCH)):
        progress.tick(number * _BATCH, len(rows), "pairs")
        picked = [rows[row] for row in batch]
        tensors = pad_batch(picked, served.pad_id, served.inputs, served.pad_side)
        logits[list(batch)] = score(model, tensors)[:, served.label]
    return [float(logit) for logit in logits]


def _with_near_ties(
    model: CrossEncoder,
    served: ServedModel,
    tokenizer: str,
    *,
    probes: ProbeSet,
    logits: Sequence[float],
    progress: Progress,
) -> tuple[ProbeSet, list[float]]:
    """Probes and scores with those pairs that this model's own scores give."""
    known = dict(zip(probes.pairs(), logits, strict=True))
    full = add_near_ties(probes, logits)
    new = [pair for pair in full.pairs() if pair not in known]
    rows = encode_pairs(tokenizer, served, new)
    known |= zip(new, _reference(model, served, rows, progress), strict=True)
    return full, [known[pair] for pair in full.pairs()]


def _check_reference(probes: ProbeSet, logits: Sequence[float]) -> None:
    """Refuse a model that ranks nothing: every engine would agree with it."""
    wrong = np.count_nonzero(~np.isfinite(logits))
    if wrong:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the model scores {wrong} of {len(logits)} probe pairs with NaN or infinity; its "
            "weights are damaged, use those of a trained cross-encoder",
        )
    share, *own = share_told_apart(probes, logits)
    if np.ptp(logits) <= _TOLERANCE or share < _MIN_TOLD_APART:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the model scores passages alike (spread {np.ptp(logits):.2g}, {share:.0%} of the "
            "pairs differ); its score head is not trained, use a trained cross-encoder",
        )
    if own and not own[0]:
        raise StageError(
            StageReason.PROBES_INVALID,
            "the model scores all passages of each query of your own probe set alike, so that no "
            "engine can be measured by it; give passages that differ",
        )
