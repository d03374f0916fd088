"""The commands: their arguments, and the call of the stage behind each.

A stage's module is imported when its command runs, because torch and transformers take seconds that
`resolve` or `publish` need not spend.
"""

# ruff: noqa: PLC0415

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import TypeAdapter, ValidationError

from engine_builder.arguments import (
    Command,
    add_signing_key,
    digest,
    directory,
    moment,
    number,
    signing_key,
)
from engine_builder.errors import UsageError
from engine_builder.facts import MIN_LENGTH
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.record import recorded
from engine_builder.tool_commands import TOOLS
from reranker_contracts import EngineIdentity, EngineTarget, PrepareIdentity, Scoring, Stage
from reranker_contracts.model import TEMPLATE_LIMIT
from reranker_contracts.targets import PRECISIONS, Accelerator, Precision, Runtime

if TYPE_CHECKING:
    from engine_builder.stages.resolve import AdapterSource


_DEFAULT_MAX_BATCH_SIZE = 64
_MAX_BATCH_SIZE = 4096


def _source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        metavar="URI",
        help="hf://org/name[@revision], oci://…, pvc://claim/path, or a directory",
    )
    parser.add_argument(
        "--source-dir",
        type=Path,
        metavar="DIR",
        help="where an oci:// source's files lie, or a pvc:// source's claim is mounted",
    )


def _length_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-length",
        type=number(MIN_LENGTH, 1 << 24),
        metavar="N",
        help="longest input in tokens (default: the model's own limit)",
    )


def _scoring_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "how the model scores", "Default: as its own files and its family's model card say."
    )
    group.add_argument(
        "--template",
        type=_template,
        metavar="TEXT",
        help="text around {query} and {passage}, each once",
    )
    group.add_argument(
        "--label",
        dest="labels",
        action="append",
        metavar="WORD",
        help="of a language model: the word that means relevant; once more for the one that does "
        "not",
    )
    group.add_argument(
        "--pooling",
        choices=["cls", "last", "mean"],
        help="which hidden states are scored",
    )
    group.add_argument("--activation", choices=["none", "sigmoid"], help="from logit to score")


def _scoring(args: argparse.Namespace) -> Scoring | None:
    """What the arguments say; None when they say nothing, so that identities are equal."""
    values = {name: getattr(args, name) for name in Scoring.model_fields}
    said = {name: value for name, value in values.items() if value is not None}
    try:
        return Scoring.model_validate(said) if said else None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"--{first['loc'][0]}: {first['msg']}") from error


def _template(text: str) -> str:
    if len(text) > TEMPLATE_LIMIT:
        raise argparse.ArgumentTypeError(f"at most {TEMPLATE_LIMIT} characters are allowed")
    return text


def _adapter_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("LoRA adapter, merged into the model")
    group.add_argument("--adapter", metavar="URI", help="as --source, of a PEFT adapter")
    group.add_argument("--adapter-source-dir", type=Path, metavar="DIR", help="as --source-dir")
    group.add_argument("--adapter-revision", metavar="R", help="as --revision")


def _adapter(args: argparse.Namespace) -> "AdapterSource | None":
    from engine_builder.stages.resolve import AdapterSource

    if args.adapter is None:
        return None
    return AdapterSource(args.adapter, args.adapter_source_dir, args.adapter_revision)


def _target_arguments(parser: argparse.ArgumentParser, *, auto: bool = False) -> None:
    any_of = ("auto",) if auto else ()
    parser.add_argument(
        "--accelerator",
        choices=get_args(Accelerator),
        default="cpu",
        help="what will serve the engine (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime",
        choices=[*any_of, *get_args(Runtime)],
        default="auto" if auto else "onnxruntime",
        help="what will run it there (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=[*any_of, *get_args(Precision)],
        default="auto" if auto else "fp32",
        help="of its matrix products (default: %(default)s)",
    )
    parser.add_argument(
        "--compute-capability",
        metavar="N.N",
        help="of the GPU, for tensorrt and tensorrt-rtx, as 8.9",
    )
    parser.add_argument(
        "--max-batch-size",
        type=number(1, _MAX_BATCH_SIZE),
        default=_DEFAULT_MAX_BATCH_SIZE,
        metavar="N",
        help="rows in one call of the engine (default: %(default)s)",
    )
    parser.add_argument(
        "--gpu-memory",
        type=number(1, 1 << 24),
        metavar="MIB",
        help="what the GPU has (nvidia.com/gpu.memory); refuse an engine that would not fit",
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="DIR",
        help="where tensorrt keeps its timings for later builds",
    )


def _target(args: argparse.Namespace) -> EngineTarget:
    try:
        return EngineTarget(
            runtime=args.runtime,
            precision=args.precision,
            accelerator=args.accelerator,
            compute_capability=args.compute_capability,
            max_batch_size=args.max_batch_size,
        )
    except ValidationError as error:
        raise UsageError(_target_problem(args, error)) from error


def _target_problem(args: argparse.Namespace, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["loc"] == ("compute_capability",):
        return f"--compute-capability {args.compute_capability}: give it as 8.9"
    pairs = ", ".join(
        f"{runtime} on {accelerator}: {' '.join(numbers)}"
        for (runtime, accelerator), numbers in PRECISIONS.items()
    )
    problem = first["msg"].removeprefix("Value error, ")
    return f"--runtime, --precision, --accelerator: {problem}; there are {pairs}"


def _memory(args: argparse.Namespace) -> int | None:
    return None if args.gpu_memory is None else args.gpu_memory << 20


def _resolve_arguments(parser: argparse.ArgumentParser) -> None:
    _source_arguments(parser)
    parser.add_argument("--revision", metavar="R", help="branch, tag, commit or sha256: tree hash")
    _length_argument(parser)
    _scoring_arguments(parser)
    _adapter_arguments(parser)


def _resolve(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.resolve import resolve

    return resolve(
        args.source,
        source_dir=args.source_dir,
        revision=args.revision,
        max_length=args.max_length,
        scoring=_scoring(args),
        adapter=_adapter(args),
        progress=progress,
    )


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    _source_arguments(parser)
    parser.add_argument("--revision", required=True, metavar="R", help="as resolve reported it")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")


def _fetch(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.fetch import fetch

    with recorded(progress, "fetch", args.out):
        return fetch(
            args.source,
            revision=args.revision,
            source_dir=args.source_dir,
            out=args.out,
            progress=progress,
        )


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", required=True, type=directory, metavar="DIR", help="the model's files"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--adapter-dir", type=directory, metavar="DIR", help="a LoRA adapter to merge in"
    )
    _length_argument(parser)
    _scoring_arguments(parser)


def _export(args: argparse.Namespace, progress: Progress) -> Outcome:
    with progress.step("loading PyTorch and transformers"):
        from engine_builder.stages.export import export

    with recorded(progress, "export", args.out, after=args.source):
        return export(
            args.source,
            args.out,
            max_length=args.max_length,
            scoring=_scoring(args),
            adapter=args.adapter_dir,
            progress=progress,
        )


def _compile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prepared",
        required=True,
        type=Path,
        metavar="DIR",
        help="a published prepared model",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    _target_arguments(parser)


def _compile(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.compile import compile_engine

    with recorded(progress, "compile", args.out, after=args.prepared):
        return compile_engine(
            args.prepared,
            args.out,
            _target(args),
            progress=progress,
            gpu_memory=_memory(args),
            timing_cache=args.timing_cache,
        )


def _validate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prepared", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--engine", required=True, type=Path, metavar="DIR", help="gets parity.json"
    )


def _validate(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.validate import validate

    with recorded(progress, "validate", args.engine, after=args.engine):
        return validate(args.prepared, args.engine, progress=progress)


def _publish_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        type=directory,
        metavar="DIR",
        help="what to publish",
    )
    parser.add_argument("--store", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--identity",
        required=True,
        metavar="FILE|JSON",
        help="a PrepareIdentity or EngineIdentity; its sha256 names the artefact",
    )
    parser.add_argument(
        "--keep",
        nargs="*",
        type=digest,
        metavar="D",
        help="first delete all other artefacts of the store that are older than --made-before",
    )
    parser.add_argument(
        "--made-before",
        type=moment,
        metavar="TIME",
        help="with --keep, as 2026-01-31T12:00:00Z",
    )
    add_signing_key(parser)


def _publish(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.publish import publish
    from engine_builder.store import Retention

    if (args.keep is None) != (args.made_before is None):
        raise UsageError("--keep and --made-before go together: give both or none")
    retention = None
    if args.keep is not None:
        retention = Retention(frozenset(args.keep), args.made_before)
    identity = _read_identity(args.identity)
    return publish(
        args.source,
        args.store,
        identity,
        retention=retention,
        key=signing_key(args),
        progress=progress,
    )


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", required=True, type=directory, metavar="DIR")
    parser.add_argument("--digest", required=True, nargs="+", type=digest, metavar="D")


def _remove(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.remove import remove

    return remove(args.store, args.digest, progress=progress)


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    _resolve_arguments(parser)
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="a store; the engine's path is printed, work files go below TMPDIR",
    )
    _target_arguments(parser, auto=True)
    add_signing_key(parser)


def _build(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.build import Wanted, build

    return build(
        args.source,
        args.out,
        source_dir=args.source_dir,
        revision=args.revision,
        max_length=args.max_length,
        scoring=_scoring(args),
        adapter=_adapter(args),
        wanted=Wanted(
            runtime=None if args.runtime == "auto" else args.runtime,
            precision=None if args.precision == "auto" else args.precision,
            accelerator=args.accelerator,
            compute_capability=args.compute_capability,
            max_batch_size=args.max_batch_size,
            gpu_memory=_memory(args),
            timing_cache=args.timing_cache,
        ),
        key=signing_key(args),
        progress=progress,
    )


def _read_identity(value: str) -> PrepareIdentity | EngineIdentity:
    adapter: TypeAdapter[PrepareIdentity | EngineIdentity] = TypeAdapter(
        PrepareIdentity | EngineIdentity
    )
    try:
        text = value if value.lstrip().startswith("{") else Path(value).read_text("utf-8")
        return adapter.validate_json(text)
    except OSError as error:
        raise UsageError(f"--identity {value}: cannot be read ({error.strerror})") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise UsageError(
            "--identity: is not a PrepareIdentity or EngineIdentity document in JSON"
        ) from error


COMMANDS = {
    "resolve": Command(
        Stage.RESOLVE,
        "find a source's fixed revision and judge the model by its metadata",
        _resolve_arguments,
        _resolve,
    ),
    "fetch": Command(
        Stage.FETCH, "get exactly the needed files of a revision", _fetch_arguments, _fetch
    ),
    "export": Command(
        Stage.EXPORT, "make ONNX, tokenizer and reference scores", _export_arguments, _export
    ),
    "compile": Command(Stage.COMPILE, "make the files of one target", _compile_arguments, _compile),
    "validate": Command(
        Stage.VALIDATE, "compare an engine with FP32 PyTorch", _validate_arguments, _validate
    ),
    "publish": Command(
        Stage.PUBLISH, "put a directory into the store, atomically", _publish_arguments, _publish
    ),
    "remove": Command(Stage.REMOVE, "delete artefacts from the store", _remove_arguments, _remove),
    "build": Command(
        Stage.PUBLISH, "all stages on this machine, into a store", _build_arguments, _build
    ),
    **TOOLS,
}
