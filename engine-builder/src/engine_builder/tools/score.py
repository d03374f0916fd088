"""score: ranks passages from a file with an engine, the quickest way to look at a model."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from engine_builder.artefacts import ENGINE_VERSION, TOKENIZER, read_served_model
from engine_builder.batches import in_batches, pad_batch
from engine_builder.errors import StageError, UsageError, printable
from engine_builder.outcome import Outcome
from engine_builder.pair_template import PairEncoder
from engine_builder.progress import Progress
from engine_builder.provenance import examine
from engine_builder.targets import Scorer, builder_of
from reranker_contracts import EngineIdentity, ServedModel, StageReason

MAX_PASSAGES = 100_000
MAX_BYTES = 256 << 20
_BATCH = 32
_SHOWN = 160


@dataclass(frozen=True)
class Ranked:
    """One passage with its place in the input."""

    index: int
    logit: float
    score: float
    passage: str


def score(
    engine: Path,
    query: str,
    passages: Sequence[str],
    *,
    top: int | None,
    as_json: bool,
    progress: Progress,
) -> Outcome:
    """Print the passages by score, the best first."""
    with progress.step("checking the engine"):
        manifest = examine(engine).manifest
    if not isinstance(manifest.identity, EngineIdentity):
        raise UsageError(f"{engine}: is a prepared model; name the directory of an engine")
    model = read_served_model(engine)
    with progress.step("loading the engine"):
        target = manifest.identity.target
        loaded = builder_of(target.runtime).load(engine / ENGINE_VERSION, target)
    with progress.step(f"scoring {len(passages)} passages on {loaded.device}"):
        logits = _logits(loaded, model, engine, query, passages, progress=progress)
    ranked = [
        Ranked(index, logits[index], _activated(model, logits[index]), passages[index])
        for index in sorted(range(len(passages)), key=lambda index: -logits[index])
    ]
    for entry in ranked[:top]:
        print(_json(entry) if as_json else _line(entry))
    return Outcome(f"{model.name} ranked {len(passages)} passages")


def read_passages(path: str, *, jsonl: bool) -> list[str]:
    """Passages of a file, or of standard input for `-`: one a line, blank ones left out.

    With `jsonl` each line is a JSON string, or an object with `text`. Raises UsageError.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--passages {path}: cannot be read as UTF-8 text ({error})") from error
    # Only ends of line that every tool knows: str.splitlines would cut at others, too.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    passages = [
        _parsed(path, number, line) if jsonl else line
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not passages or len(passages) > MAX_PASSAGES or len(data) > MAX_BYTES:
        raise UsageError(
            f"--passages {path}: give 1 to {MAX_PASSAGES} passages, one a line, in at most "
            f"{MAX_BYTES >> 20} MiB"
        )
    return passages


def _parsed(path: str, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise UsageError(
            f"--passages {path}: line {number} is neither a JSON string nor an object with text"
        )
    return text


def _logits(
    engine: Scorer,
    model: ServedModel,
    directory: Path,
    query: str,
    passages: Sequence[str],
    *,
    progress: Progress,
) -> list[float]:
    """In the order of `passages`; batches are by length, so that little is padding."""
    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    encoder = PairEncoder(tokenizer, model.template, model.max_length)
    rows = [encoder.encode(query, passage) for passage in passages]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    logits = np.zeros(len(rows))
    for number, batch in enumerate(in_batches(order, _BATCH)):
        progress.tick(number * _BATCH, len(rows), "passages")
        tensors = pad_batch(
            [rows[row] for row in batch], model.pad_id, model.inputs, model.pad_side
        )
        logits[list(batch)] = engine.run(tensors, model.labels)[:, model.label]
    if not np.isfinite(logits).all():
        raise StageError(
            StageReason.VALIDATION_FAILED,
            "the engine answers with NaN or infinity; build it again, in a higher precision",
        )
    return [float(logit) for logit in logits]


def _activated(model: ServedModel, logit: float) -> float:
    if model.activation == "sigmoid":
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else 1 - 1 / (1 + math.exp(logit))
    return logit


def _line(entry: Ranked) -> str:
    text = printable(entry.passage)
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"{entry.score:8.4f}  {entry.logit:+9.4f}  [{entry.index}]  {text}"


def _json(entry: Ranked) -> str:
    return json.dumps(
        {
            "index": entry.index,
            "logit": entry.logit,
            "score": entry.score,
            "text": entry.passage,
        },
        ensure_ascii=False,
    )
