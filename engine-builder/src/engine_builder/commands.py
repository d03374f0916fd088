"""The commands: their arguments, and the call of the stage behind each.

A stage's module is imported when its command runs, because torch and transformers take seconds that
`resolve` or `publish` need not spend.
"""

# ruff: noqa: PLC0415

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from engine_builder.arguments import (
    Command,
    add_signing_key,
    digest,
    directory,
    signing_key,
)
from engine_builder.errors import UsageError
from engine_builder.model_arguments import (
    adapter,
    add_adapter,
    add_length,
    add_probes,
    add_scoring,
    add_source,
    probes,
    scoring,
)
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.record import recorded
from engine_builder.retention_arguments import add_retention, retention
from engine_builder.target_arguments import (
    add_target,
    add_thresholds,
    check_target,
    memory,
    target,
    thresholds,
)
from engine_builder.tool_commands import TOOLS
from reranker_contracts import EngineIdentity, PrepareIdentity, Stage

if TYPE_CHECKING:
    from engine_builder.sources.selection import Content


def _resolve_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument(
        "--revision",
        metavar="R",
        help="branch, tag, commit or hash, as resolve prints it; of an archive its sha256:HEX",
    )
    add_length(parser)
    add_scoring(parser)
    add_adapter(parser)
    add_probes(parser)


def _resolve(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.resolve import resolve

    return resolve(
        args.source,
        source_dir=args.source_dir,
        revision=args.revision,
        max_length=args.max_length,
        scoring=scoring(args),
        adapter=adapter(args),
        own_probes=probes(args),
        progress=progress,
    )


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--revision", required=True, metavar="R", help="as resolve reported it")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")


def _fetch(args: argparse.Namespace, progress: Progress) -> Outcome:
    return _fetch_files(args, progress, "fetch", "model")


def _fetch_adapter(args: argparse.Namespace, progress: Progress) -> Outcome:
    return _fetch_files(args, progress, "fetch-adapter", "adapter")


def _fetch_files(
    args: argparse.Namespace, progress: Progress, stage: str, content: "Content"
) -> Outcome:
    from engine_builder.stages.fetch import fetch

    with recorded(progress, stage, args.out):
        return fetch(
            args.source,
            revision=args.revision,
            source_dir=args.source_dir,
            out=args.out,
            content=content,
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
    add_length(parser)
    add_scoring(parser)
    add_probes(parser, fixed=True)


def _export(args: argparse.Namespace, progress: Progress) -> Outcome:
    with progress.step("loading PyTorch and transformers"):
        from engine_builder.stages.export import export

    with recorded(progress, "export", args.out, after=args.source, adapter=args.adapter_dir):
        return export(
            args.source,
            args.out,
            max_length=args.max_length,
            scoring=scoring(args),
            adapter=args.adapter_dir,
            own_probes=probes(args),
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
    add_target(parser)


def _compile(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.compile import compile_engine

    with recorded(progress, "compile", args.out, after=args.prepared):
        return compile_engine(
            args.prepared,
            args.out,
            target(args),
            progress=progress,
            gpu_memory=memory(args),
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
    add_retention(parser)
    add_signing_key(parser)


def _publish(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.publish import publish

    kept = retention(args)
    identity = _read_identity(args.identity)
    return publish(
        args.source,
        args.store,
        identity,
        retention=kept,
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
    add_target(parser, auto=True)
    add_thresholds(parser)
    add_signing_key(parser)


def _build(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.stages.build import Wanted, build

    check_target(args)
    return build(
        args.source,
        args.out,
        source_dir=args.source_dir,
        revision=args.revision,
        max_length=args.max_length,
        scoring=scoring(args),
        adapter=adapter(args),
        own_probes=probes(args),
        wanted=Wanted(
            runtime=None if args.runtime == "auto" else args.runtime,
            precision=None if args.precision == "auto" else args.precision,
            accelerator=args.accelerator,
            compute_capability=args.compute_capability,
            max_batch_size=args.max_batch_size,
            gpu_memory=memory(args),
            timing_cache=args.timing_cache,
            thresholds=thresholds(args),
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
    "fetch-adapter": Command(
        Stage.FETCH_ADAPTER,
        "the same of a LoRA adapter, for export to merge in",
        _fetch_arguments,
        _fetch_adapter,
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
        Stage.PUBLISH,
        "all stages on this machine, into a store",
        _build_arguments,
        _build,
        answers=True,
    ),
    **TOOLS,
}
