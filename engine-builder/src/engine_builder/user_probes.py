"""A user's own probe set: a JSON object a line, `{"query": "…", "passages": ["…", "…"]}`.

Engines are compared with the original on it as on the built-in one, each judged by itself, so that
a few questions of one's own are not lost among a thousand others.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from engine_builder.errors import StageError, UsageError
from engine_builder.progress import human_size
from reranker_contracts import StageReason
from reranker_contracts.parity import ProbeQuery, ProbeSet

#: What a ConfigMap holds.
MAX_BYTES = 1 << 20
MAX_QUERIES = 200
#: As many again as the built-in ones: each is scored by PyTorch in FP32, and by each engine.
MAX_PAIRS = 1000


@dataclass(frozen=True)
class UserProbes:
    """The queries of a file, and the sha256 of its bytes."""

    queries: tuple[ProbeQuery, ...]
    digest: str

    def added_to(self, built_in: ProbeSet) -> ProbeSet:
        """Both sets; these are its own."""
        queries = (*built_in.queries, *self.queries)
        return ProbeSet(queries=queries, own=len(self.queries))


def read_user_probes(path: Path, expected: str | None = None) -> UserProbes:
    """Read a file of at most MAX_BYTES.

    Raises StageError: ProbesInvalid with the line, and SourceChanged when it has another sha256
    than `expected`; UsageError when it can't be read.
    """
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    if expected not in (None, digest):
        raise StageError(
            StageReason.SOURCE_CHANGED,
            f"{path.name}: the probe set has changed since it was looked at; it is looked at again",
        )
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise _invalid(path, f"is not UTF-8 (byte {error.start})") from error
    queries = tuple(
        _query(path, number, line) for number, line in enumerate(lines, 1) if line.strip()
    )
    pairs = sum(len(entry.passages) for entry in queries)
    if not queries:
        raise _invalid(path, "has no line")
    if len(queries) > MAX_QUERIES or pairs > MAX_PAIRS:
        raise _invalid(
            path,
            f"has {len(queries)} queries with {pairs} passages, at most {MAX_QUERIES} with "
            f"{MAX_PAIRS} are allowed",
        )
    return UserProbes(queries, digest)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--probes {path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise _invalid(path, f"is larger than {human_size(MAX_BYTES)}")
    return data


def _query(path: Path, number: int, line: str) -> ProbeQuery:
    try:
        found = ProbeQuery.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"{field}: " if field else ""
        raise _invalid(path, f"line {number}: {where}{first['msg'][:200]}") from error
    if not found.query.strip() or not all(passage.strip() for passage in found.passages):
        raise _invalid(path, f"line {number}: query and passages must have text")
    if len(set(found.passages)) < len(found.passages):
        raise _invalid(path, f"line {number}: a passage is there twice")
    return found


def _invalid(path: Path, problem: str) -> StageError:
    return StageError(
        StageReason.PROBES_INVALID,
        f"{path.name} {problem}; write a JSON object a line, as "
        '{"query": "…", "passages": ["…", "…"]}',
    )
