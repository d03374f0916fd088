"""Models whose authors mean harm: each ends with a reason and a remedy, soon and in little memory.

`resolve` and `fetch` read what anybody uploads; `export` also loads it.
"""

# Collected on machines without torch, so that it is imported where it is used.
# ruff: noqa: PLC0415

import json
import pickle
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from engine_builder.cli import main
from engine_builder.exit_codes import EXIT_CODES
from engine_builder.trial import on_trial
from reranker_contracts import StageReason, StageResult
from reranker_contracts.stages import MESSAGE_LIMIT

Harm = Callable[[Path], object]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> StageResult:
    """The result of a command that fails as it should."""
    result = Path(arguments[-1]) / "result.json"
    code = main([*map(str, arguments[:-1]), "--result", str(result)])
    output = capsys.readouterr()
    assert output.err == ""
    data = result.read_bytes()
    assert len(data) <= MESSAGE_LIMIT
    found = StageResult.model_validate_json(data)
    assert code == EXIT_CODES[found.reason] > 2
    assert found.message.isprintable()
    assert "Traceback" not in found.message
    assert all(line.startswith("[") for line in output.out.splitlines())
    return found


def in_json(name: str, **changes: object) -> Harm:
    """Change a JSON file of the model."""

    def harm(source: Path) -> None:
        path = source / name
        value = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(value | changes))

    return harm


def instead_of(name: str, content: bytes) -> Harm:
    return lambda source: (source / name).write_bytes(content)


class Bomb:
    """A pickle that would leave a trace."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return exec, ("raise SystemExit('code of the model was run')",)


TRICKS = "Bert\u202eledoM\n[    0.0 s] resolve: Succeeded: fine\ud800\x1b[2J"
INDEX = "model.safetensors.index.json"
KINDS: dict[str, tuple[Harm, StageReason, str]] = {
    "hidden size": (in_json("config.json", hidden_size=10**9), "ModelInvalid", "hidden_size"),
    "types": (in_json("config.json", type_vocab_size=10**9), "ModelInvalid", "type_vocab_size"),
    "labels": (in_json("config.json", id2label=None, num_labels=10**9), "NotACrossEncoder", ""),
    "code": (in_json("config.json", auto_map={"AutoModel": "x"}), "CustomCode", ""),
    "kernels": (
        in_json("config.json", _attn_implementation="evil/kernels"),
        "CustomCode",
        "attn_implementation",
    ),
    "other weights": (
        in_json("config.json", transformers_weights="../x.safetensors"),
        "ModelInvalid",
        "transformers_weights",
    ),
    "other tokenizer": (
        in_json("tokenizer_config.json", fast_tokenizer_files=["../tokenizer.4.0.json"]),
        "ModelInvalid",
        "fast_tokenizer_files",
    ),
    "names": (
        in_json("config.json", architectures=[TRICKS]),
        "ArchitectureUnsupported",
        r"\u202eledoM\n",
    ),
    "deep": (instead_of("config.json", b"[" * 900_000), "ModelInvalid", "config.json"),
    "deep index": (instead_of(INDEX, b'{"weight_map":' * 900_000), "ModelInvalid", INDEX),
    "large tokenizer": (
        lambda source: _grow(source / "tokenizer.json", 1 << 30),
        "ModelInvalid",
        "tokenizer.json",
    ),
    "path in index": (
        in_json(INDEX, weight_map={"w": "/proc/self/environ"}),
        "ModelInvalid",
        "/proc/self/environ",
    ),
    "list in index": (in_json(INDEX, weight_map={"w": ["x"]}), "ModelInvalid", "'list'"),
    "endless length": (
        instead_of("tokenizer_config.json", b'{"model_max_length": -1e999}'),
        "ModelInvalid",
        "model_max_length",
    ),
    "pickle in index": (in_json(INDEX, weight_map={"w": "x.bin"}), "UnsafeWeights", "x.bin"),
    "pickle alone": (
        lambda source: (source / "model.safetensors").rename(source / "a\n.ckpt"),
        "UnsafeWeights",
        r"a\n.ckpt",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_resolve_refuses(
    make_source, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    harm, reason, says = KINDS[kind]
    source: Path = make_source()
    harm(source)
    found = refused(capsys, "resolve", "--source", source, tmp_path)
    assert found.reason == reason, found.message
    assert says in found.message


def _grow(path: Path, size: int) -> None:
    with path.open("r+b") as stream:
        stream.truncate(size)


@pytest.fixture
def bounded() -> Iterator[None]:
    """Fails a test that took minutes or gigabytes."""
    began = time.process_time()
    yield
    assert time.process_time() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20


def _tokenizer(change: Callable[[Tokenizer], object]) -> Harm:
    def harm(source: Path) -> None:
        tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        change(tokenizer)
        tokenizer.save(str(source / "tokenizer.json"))

    return harm


def _backtracking(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"^(\s*\w+\s*\w*)*$"), "isolated")


def _growing(tokenizer: Tokenizer) -> None:
    replace = [normalizers.Replace(Regex("[a-z]"), "aaaaaaaaaaaaaaaa") for _ in range(8)]
    tokenizer.normalizer = normalizers.Sequence(replace)


def _growing_for_near_ties(tokenizer: Tokenizer) -> None:
    """On no text but those that are made of the model's own scores."""
    marked = normalizers.Replace(Regex(r"\A1\. "), "\u0001")
    replace = [normalizers.Replace("\u0001", "\u0001" * 16) for _ in range(8)]
    tokenizer.normalizer = normalizers.Sequence([marked, *replace])


def _added(source: Path, count: int) -> None:
    path = source / "tokenizer.json"
    value = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    first = len(value["model"]["vocab"])
    value["added_tokens"] += [
        {"id": first + number, "content": f"<{number}>", **flags} for number in range(count)
    ]
    path.write_text(json.dumps(value))


def _lying_header(source: Path) -> None:
    """As many parameters as the configuration asks for, in a file that holds none of them."""
    in_json("config.json", vocab_size=1 << 24, hidden_size=1 << 16)(source)
    entry = {"dtype": "F32", "shape": [1 << 24, 1 << 16], "data_offsets": [0, 4]}
    header = json.dumps({"bert.embeddings.word_embeddings.weight": entry}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(4)
    (source / "model.safetensors").write_bytes(data)


LOADED: dict[str, tuple[Harm, str, str]] = {
    "header": (_lying_header, "ModelInvalid", "word_embeddings"),
    "pickle": (
        instead_of("model.safetensors", pickle.dumps(Bomb())),
        "ModelInvalid",
        "model.safetensors",
    ),
    "config larger": (
        in_json("config.json", vocab_size=1 << 24, hidden_size=1 << 16),
        "ModelInvalid",
        "parameters",
    ),
    "no heads": (in_json("config.json", num_attention_heads=0), "ModelInvalid", "config.json"),
    "activation": (in_json("config.json", hidden_act="os.system"), "ModelInvalid", "config.json"),
    "type": (in_json("config.json", dtype="system"), "ModelInvalid", "'system'"),
    "padding": (in_json("config.json", pad_token_id=1 << 20), "ModelInvalid", "vocab_size"),
    "tuple": (in_json("config.json", return_dict=False), "ModelInvalid", "config.json"),
    "chunks": (
        in_json("config.json", chunk_size_feed_forward=1),
        "ExportFailed",
        "config.json",
    ),
    "epsilon": (in_json("config.json", layer_norm_eps="x"), "ModelInvalid", "config.json"),
    "regex": (_tokenizer(_backtracking), "ModelInvalid", "tokenizer.json"),
    "growth": (_tokenizer(_growing), "ModelInvalid", "tokenizer.json"),
    "late growth": (_tokenizer(_growing_for_near_ties), "ModelInvalid", "tokenizer.json"),
    "named vocabulary": (
        in_json("tokenizer.json", model={"type": "WordLevel", "vocab": "/proc/self/environ"}),
        "ModelInvalid",
        "no list of words",
    ),
    "added tokens": (lambda source: _added(source, 300_000), "ModelInvalid", "tokenizer"),
    "more added tokens": (lambda source: _added(source, 600_000), "ModelInvalid", "allowed"),
    "deep tokenizer": (instead_of("tokenizer.json", b"[" * 9_000_000), "ModelInvalid", "tokenizer"),
    "null": (instead_of("tokenizer.json", b"null"), "ModelInvalid", "tokenizer"),
    "short": (in_json("tokenizer_config.json", model_max_length=9), "ModelInvalid", "at least"),
}


@pytest.mark.builder
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", LOADED)
@pytest.mark.usefixtures("bounded")
def test_export_refuses(
    make_model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    from engine_builder import fast_tokenizer

    monkeypatch.setattr(fast_tokenizer, "on_trial", partial(on_trial, cpu_seconds=15))
    harm, reason, says = LOADED[kind]
    source = make_model("bert")
    harm(source)
    capsys.readouterr()
    found = refused(capsys, "export", "--source", source, "--out", tmp_path / "out", tmp_path)
    assert found.reason == reason, found.message
    assert says in found.message


@pytest.mark.builder
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_other_files_do_not_become_a_part_of_the_engine(
    make_model, tmp_path: Path, name: str
) -> None:
    secret, source = tmp_path / "secret", make_model("bert")
    secret.write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\nTOPSECRET\n")
    in_json("tokenizer_config.json", tokenizer_class="BertTokenizer")(source)
    in_json(name, vocab=str(secret), vocab_file=str(secret), merges=str(secret))(source)
    assert main(["export", "--source", str(source), "--out", str(tmp_path / "out")]) == 0
    assert "TOPSECRET" not in (tmp_path / "out/tokenizer.json").read_text()


CHAT_TEMPLATES = {
    "loops": "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "memory": "{{ 'a' * 10 ** 10 }}{{ messages }}",
    "growth": "{% for m in messages %}{{ (m.content * 9000)[:9] * 9000 }}{% endfor %}",
}


@pytest.mark.builder
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [("loops", "ModelInvalid"), ("memory", "ModelInvalid"), ("growth", None)],
)
@pytest.mark.usefixtures("bounded")
def test_chat_templates_do_no_harm(
    make_model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    reason: str | None,
) -> None:
    """One that makes nothing of a pair is no template for pairs, so the family's is used."""
    from engine_builder import fast_tokenizer

    monkeypatch.setattr(fast_tokenizer, "on_trial", partial(on_trial, cpu_seconds=15))
    source = make_model("qwen3")
    (source / "chat_template.jinja").write_text(CHAT_TEMPLATES[kind])
    if reason is None:
        assert main(["export", f"--source={source}", f"--out={tmp_path / 'out'}"]) == 0
        return
    capsys.readouterr()
    found = refused(capsys, "export", "--source", source, "--out", tmp_path / "out", tmp_path)
    assert found.reason == reason, found.message
    assert "tokenizer.json" in found.message
