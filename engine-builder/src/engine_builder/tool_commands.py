"""The commands for people who have an artefact: inspect, verify, sign, score, push, pull."""

# Imports of libraries wait until their command runs.
# ruff: noqa: PLC0415

import argparse
from pathlib import Path

from engine_builder.arguments import (
    Command,
    add_public_key,
    add_signing_key,
    digest,
    directory,
    number,
    public_key,
    signing_key,
)
from engine_builder.errors import UsageError
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.retention_arguments import add_retention, retention
from reranker_contracts import Stage


def _registry_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry-config",
        type=Path,
        metavar="FILE",
        help="credentials as `docker login` writes them (default: $DOCKER_CONFIG or ~/.docker)",
    )
    parser.add_argument(
        "--plain-http", action="store_true", help="speak to the registry without TLS"
    )


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "artefact", metavar="DIR|REF", help="a published directory, or oci://HOST/REPOSITORY:TAG"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    add_public_key(parser)
    _registry_arguments(parser)


def _inspect(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.oci.reference import is_reference
    from engine_builder.tools.inspect import inspect_directory, inspect_remote

    key, as_text = public_key(args), not args.json
    if is_reference(args.artefact):
        return inspect_remote(
            args.artefact,
            config=args.registry_config,
            plain_http=args.plain_http,
            key=key,
            as_text=as_text,
            progress=progress,
        )
    if not Path(args.artefact).is_dir():
        raise UsageError(f"{args.artefact}: there is no such directory; a registry's begin oci://")
    return inspect_directory(Path(args.artefact), key=key, as_text=as_text, progress=progress)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=directory, metavar="DIR")
    parser.add_argument("--digest", type=digest, metavar="HEX", help="which artefact it must be")
    add_public_key(parser)


def _verify(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.tools.inspect import verify

    with progress.step("checking every file"):
        return verify(args.directory, digest=args.digest, key=public_key(args))


def _sign_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=directory, metavar="DIR")
    add_signing_key(parser, required=True)


def _sign(args: argparse.Namespace, _progress: Progress) -> Outcome:
    from engine_builder.tools.inspect import sign

    key = signing_key(args)
    if key is None:
        raise UsageError("--sign-key is required")
    return sign(args.directory, key)


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", type=directory, metavar="DIR", help="a published engine")
    parser.add_argument("--query", required=True, metavar="TEXT")
    parser.add_argument(
        "--passages",
        default="-",
        metavar="FILE",
        help="one passage a line (default: standard input)",
    )
    parser.add_argument(
        "--jsonl", action="store_true", help="each line is a JSON string or an object with text"
    )
    parser.add_argument("--top", type=number(1, 1 << 30), metavar="N", help="print only the best N")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")


def _score(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.tools.score import read_passages, score

    passages = read_passages(args.passages, jsonl=args.jsonl)
    return score(
        args.engine, args.query, passages, top=args.top, as_json=args.json, progress=progress
    )


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=directory, metavar="DIR", help="a published directory")
    parser.add_argument("reference", metavar="REF", help="oci://HOST/REPOSITORY:TAG")
    parser.add_argument(
        "--if-absent",
        action="store_true",
        help="leave a tag alone that holds this artefact (with --sign-key: signed with that key)",
    )
    add_signing_key(parser)
    add_public_key(parser)
    _registry_arguments(parser)


def _push(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.tools.transfer import push_artefact

    return push_artefact(
        args.directory,
        args.reference,
        config=args.registry_config,
        plain_http=args.plain_http,
        key=public_key(args),
        signing=signing_key(args),
        if_absent=args.if_absent,
        progress=progress,
    )


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REF", help="oci://HOST/REPOSITORY:TAG or @DIGEST")
    parser.add_argument(
        "--store", required=True, type=Path, metavar="DIR", help="gets it; its path is printed"
    )
    parser.add_argument("--digest", type=digest, metavar="HEX", help="which artefact it must be")
    add_retention(parser)
    add_public_key(parser)
    _registry_arguments(parser)


def _pull(args: argparse.Namespace, progress: Progress) -> Outcome:
    from engine_builder.oci import Wanted
    from engine_builder.tools.transfer import pull_artefact

    return pull_artefact(
        args.reference,
        args.store,
        config=args.registry_config,
        plain_http=args.plain_http,
        wanted=Wanted(public_key(args), args.digest, retention(args)),
        progress=progress,
    )


TOOLS = {
    "inspect": Command(None, "print an artefact and check it", _inspect_arguments, _inspect),
    "verify": Command(
        Stage.VERIFY,
        "check every sha256, the provenance and a signature",
        _verify_arguments,
        _verify,
        answers=True,
    ),
    "sign": Command(None, "sign the provenance of an artefact", _sign_arguments, _sign),
    "score": Command(None, "rank passages from a file with an engine", _score_arguments, _score),
    "push": Command(
        Stage.PUSH, "upload an artefact to an OCI registry", _push_arguments, _push, answers=True
    ),
    "pull": Command(
        Stage.PULL, "download an artefact into a store", _pull_arguments, _pull, answers=True
    ),
}
