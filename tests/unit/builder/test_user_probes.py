"""A probe set of the user's own: what it may look like, and that engines are measured by it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine_builder.cli import main
from engine_builder.errors import StageError, UsageError
from engine_builder.probes import add_near_ties, load_probes
from engine_builder.user_probes import MAX_BYTES, MAX_PAIRS, MAX_QUERIES, read_user_probes
from reranker_contracts import StageReason, StageResult
from reranker_contracts.parity import ProbeSet

from .conftest import MakeSource

LINE = json.dumps(
    {"query": "refunds", "passages": ["Money back within 30 days.", "Opening hours."]}
)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "probes.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_set_is_read_line_by_line(tmp_path: Path) -> None:
    text = f"{LINE}\n\n{LINE.replace('refunds', 'Rückgabe')}\n"
    found = read_user_probes(written(tmp_path, text))
    assert [entry.query for entry in found.queries] == ["refunds", "Rückgabe"]
    assert found.digest == hashlib.sha256(text.encode()).hexdigest()
    assert read_user_probes(tmp_path / "probes.jsonl", found.digest) == found
    # What other systems call ends of line are letters of a text.
    odd = json.dumps({"query": "a\u2028b", "passages": ["x", "y"]}, ensure_ascii=False)
    assert len(read_user_probes(written(tmp_path, odd)).queries) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no line"),
        ("\n\n", "has no line"),
        ("[1]", "line 1: Input should be an object"),
        (f"{LINE}\n{{", "line 2: Invalid JSON"),
        ('{"query": "a"}', "line 1: passages: Field required"),
        ('{"query": "a", "passages": ["one"]}', "line 1: passages: Tuple should have at least 2"),
        ('{"query": "a", "passages": ["x", "y"], "relevance": [1, 0]}', "line 1: relevance: Extra"),
        ('{"query": "a", "passages": ["x", 3]}', "line 1: passages.1: Input should be a valid str"),
        ('{"query": " ", "passages": ["x", "y"]}', "line 1: query and passages must have text"),
        ('{"query": "a", "passages": ["x", ""]}', "line 1: query and passages must have text"),
        ('{"query": "a", "passages": ["x", "x"]}', "line 1: a passage is there twice"),
        (b"\xff\xfe", "is not UTF-8"),
        (f"{LINE}\n" * (MAX_QUERIES + 1), f"at most {MAX_QUERIES}"),
        (
            json.dumps({"query": "a", "passages": [str(n) for n in range(MAX_PAIRS + 1)]}),
            f"with {MAX_PAIRS} are allowed",
        ),
        (b"x" * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_what_is_wrong_is_told_with_the_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(StageError, match="JSON object a line") as caught:
        read_user_probes(written(tmp_path, text))
    assert caught.value.reason is StageReason.PROBES_INVALID
    assert says in caught.value.message


def test_a_file_that_is_not_there_or_another_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--probes .*nowhere: cannot be read"):
        read_user_probes(tmp_path / "nowhere")
    with pytest.raises(StageError) as changed:
        read_user_probes(written(tmp_path, LINE), "0" * 64)
    assert changed.value.reason is StageReason.SOURCE_CHANGED


def test_no_near_ties_are_made_of_what_the_user_brought(tmp_path: Path) -> None:
    own = read_user_probes(written(tmp_path, LINE))
    probes = own.added_to(load_probes())
    full = add_near_ties(probes, [float(number) for number in range(len(probes.pairs()))])
    assert full.own == 1
    assert full.queries[-1] == own.queries[0]
    assert len(full.queries[0].passages) > len(probes.queries[0].passages)
    assert ProbeSet.model_validate_json(full.to_json()) == full


@pytest.mark.builder
def test_resolve_reports_which_set_it_was(make_source: MakeSource, tmp_path: Path) -> None:
    path, result = written(tmp_path, LINE), tmp_path / "result.json"
    arguments = ["resolve", "--source", str(make_source()), "--result", str(result)]
    assert main([*arguments, "--probes", str(path)]) == 0
    resolved = StageResult.model_validate_json(result.read_bytes()).resolved
    assert resolved is not None
    assert resolved.probes == hashlib.sha256(LINE.encode()).hexdigest()
    path.write_text("nonsense")
    assert main([*arguments, "--probes", str(path)]) == 5
    refused = StageResult.model_validate_json(result.read_bytes())
    assert refused.reason is StageReason.PROBES_INVALID


@pytest.mark.builder
def test_an_engine_is_measured_on_both_sets(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    path, store, result = written(tmp_path, LINE), tmp_path / "store", tmp_path / "result.json"
    arguments = ["build", f"--source={make_model('bert')}", f"--out={store}"]
    assert main([*arguments, f"--probes={path}", f"--result={result}"]) == 0
    report = StageResult.model_validate_json(result.read_bytes()).parity
    assert report is not None
    assert report.queries == len(load_probes().queries) + 1
    (prepared,) = (store / "prepared").iterdir()
    probes = ProbeSet.model_validate_json((prepared / "probe.json").read_bytes())
    assert (probes.own, probes.queries[-1].query) == (1, "refunds")
    manifest = json.loads((prepared / "manifest.json").read_bytes())
    assert manifest["identity"]["probes"] == hashlib.sha256(LINE.encode()).hexdigest()


@pytest.mark.builder
def test_a_set_that_the_model_scores_alike_is_refused(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Texts whose tokens are equal are equal to the model."""
    alike = json.dumps({"query": "refunds", "passages": ["Money", "money"]})
    path, result = written(tmp_path, alike), tmp_path / "result.json"
    arguments = ["build", f"--source={make_model('bert')}", f"--out={tmp_path / 'store'}"]
    assert main([*arguments, f"--probes={path}", f"--result={result}"]) == 5
    refused = StageResult.model_validate_json(result.read_bytes())
    assert refused.reason is StageReason.PROBES_INVALID
    assert "scores all passages of each query" in refused.message
