"""The command line. Nothing is imported before it is needed, so `--help` is there at once.

Exit codes: 0 ok or ready, 1 not ready or refused, 2 wrong usage or no cluster, 130 after Ctrl-C;
of `diff` 0 when nothing would change, else 1; of `rollout status` 0 when the newest spec, or what
`rollout undo` asked for since, has the traffic for good.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from kubectl_rr.errors import RrError
from kubectl_rr.terminal import complain
from reranker_operator import __version__

if TYPE_CHECKING:
    from kubectl_rr.cluster import Access

PROGRAM = "kubectl rr"
_INTERRUPTED = 130
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_OPTIONS = {"-n", "--namespace", "--context", "--kubeconfig", "--color"}

_ABOUT = """What a RerankerService does, and why.

commands:
  status [NAME]                a tree of services, engines, pods and conditions
  explain NAME                 why it is not ready, and what to do
  rank NAME QUERY [PASSAGE...] ask it a question
  events NAME                  what was said about all of its objects, by time
  diff NAME                    what would change about its pods, or is changing
  rollout VERB NAME            status, history, pause, resume, promote, abort, undo, retry
  version                      which version this is

examples:
  kubectl rr status --watch
  kubectl rr explain demo
  kubectl rr rank demo "shrink photos" "image tools" "text editor"
  kubectl rr rollout status demo --watch

`kubectl rr COMMAND --help` tells more. Exit codes: 0 ok, ready, or nothing would change (diff),
1 not ready, refused, or something would change, 2 wrong usage or no cluster."""


class _Parser(argparse.ArgumentParser):
    """One line for wrong usage."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see `{self.prog} --help`")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        return _main(sys.argv[1:] if arguments is None else list(arguments))
    except RrError as error:
        complain(str(error))
        return error.code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # `| head` has enough. Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def script() -> NoReturn:
    """`kubectl-rr`. A signal that ends it must still end the port-forward."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: sys.exit(_INTERRUPTED))
    sys.exit(main())


def _main(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        arguments = ["version"]
    command, rest = _split(arguments)
    if command is None or command in ("-h", "--help", "help"):
        sys.stdout.write(f"{_ABOUT}\n")
        return 0 if command is not None else 2
    if command == "version":
        sys.stdout.write(f"kubectl rr {__version__}\n")
        return 0
    if command not in _COMMANDS:
        _Parser(prog=PROGRAM).error(f"there is no command {command!r}")
    (about, examples, add), run = _COMMANDS[command]
    verb = next((word for word in rest if word in _VERBS), None)
    if command == "rollout" and verb and {"-h", "--help"} & set(rest):
        return _help_of(verb)
    parser = _parser(command, about, examples, add)
    # Intermixed: options may stand between the passages of `rank`.
    code = run(parser, parser.parse_intermixed_args(rest))
    sys.stdout.flush()
    return code


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The command and the rest: kubectl's options may stand before the command."""
    before: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-h", "--help"):
        option = rest.pop(0)
        before.append(option)
        if option in _OPTIONS and rest:
            before.append(rest.pop(0))
    return (rest[0], before + rest[1:]) if rest else (None, before)


def _parser(command: str, about: str, examples: str, add: Callable[[_Parser], None]) -> _Parser:
    parser = _Parser(
        prog=f"{PROGRAM} {command}",
        description=about,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add(parser)
    common = parser.add_argument_group("as for kubectl")
    common.add_argument("-n", "--namespace", type=_name, metavar="NAMESPACE")
    common.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    common.add_argument("--kubeconfig", metavar="FILE")
    parser.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )
    return parser


def _access(arguments: argparse.Namespace, *, everywhere: bool = False) -> "Access":
    from kubectl_rr.cluster import Access  # noqa: PLC0415 - slow to load

    return Access(arguments.kubeconfig, arguments.context, arguments.namespace, everywhere)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a Kubernetes object")
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 10 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _add_status(parser: _Parser) -> None:
    parser.add_argument("name", nargs="?", type=_name, metavar="NAME")
    parser.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("-w", "--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("-o", "--output", choices=["json"], help="what the tree is made from")


def _status(parser: _Parser, arguments: argparse.Namespace) -> int:
    if arguments.name and arguments.all_namespaces:
        parser.error("a service can't be named across all namespaces")
    as_json = arguments.output == "json"
    if as_json and arguments.watch:
        parser.error("-o json is for one look, not for --watch")
    from kubectl_rr import status  # noqa: PLC0415 - slow to load

    access = _access(arguments, everywhere=arguments.all_namespaces)
    return status.run(
        access, arguments.name, watch=arguments.watch, as_json=as_json, color=arguments.color
    )


def _add_explain(parser: _Parser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME")


def _explain(_parser: _Parser, arguments: argparse.Namespace) -> int:
    from kubectl_rr import explain  # noqa: PLC0415 - slow to load

    return explain.run(_access(arguments), arguments.name, color=arguments.color)


def _add_events(parser: _Parser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME")
    parser.add_argument("--warnings", action="store_true", help="only what is of type Warning")
    parser.add_argument("-w", "--watch", action="store_true", help="go on until Ctrl-C")


def _events(_parser: _Parser, arguments: argparse.Namespace) -> int:
    from kubectl_rr import events  # noqa: PLC0415 - slow to load

    return events.run(
        _access(arguments),
        arguments.name,
        warnings=arguments.warnings,
        watch=arguments.watch,
        color=arguments.color,
    )


def _add_diff(parser: _Parser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME")


def _diff(_parser: _Parser, arguments: argparse.Namespace) -> int:
    from kubectl_rr import diff  # noqa: PLC0415 - slow to load

    return diff.run(_access(arguments), arguments.name, color=arguments.color)


@dataclass(frozen=True)
class _Verb:
    """What a verb of `rollout` does, and the option that it may have."""

    about: str
    option: str = ""
    example: str = ""


_VERBS = {
    "status": _Verb(
        "What serves, what is on its way, what it is judged by, and what was given up. Exit code 0 "
        "when the\nnewest spec, or what `rollout undo` asked for since, has the traffic for good, "
        "else 1.",
        "watch",
        "--watch",
    ),
    "history": _Verb("Revisions that had the traffic, which are kept, and which were given up."),
    "pause": _Verb("Hold back what would change running pods: sets spec.rollout.paused."),
    "resume": _Verb("Let happen what a pause held back: sets spec.rollout.paused to false."),
    "promote": _Verb(
        "Let the new revision go on to its next step without waiting for the present one.",
        "full",
        "--full",
    ),
    "abort": _Verb("Give up the revision that is on its way: the former one gets all the traffic."),
    "undo": _Verb(
        "Serve a former revision again, until the spec changes or `rollout retry`.",
        "to",
        "--to 9f8e7d6c",
    ),
    "retry": _Verb("Try again what was given up, or end an undo."),
}


def _help_of(verb: str) -> int:
    found, command = _VERBS[verb], f"rollout {verb}"
    examples = f"  {PROGRAM} {command} demo"
    if found.example:
        examples += f"\n  {PROGRAM} {command} demo {found.example}"

    def add(parser: _Parser) -> None:
        parser.add_argument("name", type=_name, metavar="NAME")
        _add_option(parser, found.option)

    _parser(command, found.about, examples, add).print_help()
    return 0


def _add_rollout(parser: _Parser) -> None:
    parser.add_argument("verb", metavar="VERB", choices=_VERBS, help=", ".join(_VERBS))
    parser.add_argument("name", type=_name, metavar="NAME")
    for verb, known in _VERBS.items():
        _add_option(parser, known.option, f"of {verb}: ")


def _add_option(parser: _Parser, option: str, of: str = "") -> None:
    """What a verb has beside the name; `of` says which verb, where that is not plain."""
    if option == "watch":
        text = f"{of}until it has come to an end"
        parser.add_argument("-w", "--watch", action="store_true", help=text)
    elif option == "full":
        text = f"{of}wait for nothing any more, to the end"
        parser.add_argument("--full", action="store_true", help=text)
    elif option == "to":
        text = f"{of}which; default: the last one that is kept"
        parser.add_argument("--to", type=_name, metavar="REVISION", help=text)


def _rollout(parser: _Parser, arguments: argparse.Namespace) -> int:
    for option in filter(None, (known.option for known in _VERBS.values())):
        if getattr(arguments, option) and _VERBS[arguments.verb].option != option:
            parser.error(f"--{option} is not for {arguments.verb}")
    from kubectl_rr import rollout, rollout_status  # noqa: PLC0415 - slow to load

    access, name, color = _access(arguments), arguments.name, arguments.color
    if arguments.verb == "status":
        return rollout_status.run(access, name, watch=arguments.watch, color=color)
    if arguments.verb == "history":
        return rollout_status.history(access, name, color=color)
    return rollout.run(access, name, arguments.verb, full=arguments.full, to=arguments.to)


def _add_rank(parser: _Parser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME")
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("passages", nargs="*", metavar="PASSAGE", help="- reads standard input")
    parser.add_argument(
        "-f", "--file", metavar="FILE", help="one passage per line, or a JSON list of strings"
    )
    parser.add_argument("--top", type=_count, metavar="N", help="show only the N best")
    parser.add_argument("-o", "--output", choices=["json"])
    parser.add_argument(
        "--truncate",
        choices=["END", "NONE"],
        help="cut or refuse passages that are too long; default: as the service is set",
    )
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--key-env", metavar="VARIABLE", help="variable of the environment that holds an API key"
    )
    key.add_argument("--api-key-file", metavar="FILE", help="file that holds an API key")
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        help="CA that the service's certificate, for NAME.NAMESPACE.svc, must be of; default: any "
        "certificate, since the API server leads to the pod",
    )


def _rank(_parser: _Parser, arguments: argparse.Namespace) -> int:
    from kubectl_rr import rank, service_api  # noqa: PLC0415 - slow to load

    question = rank.read_question(
        arguments.query, arguments.passages, arguments.file, arguments.truncate
    )
    key = service_api.read_key(arguments.key_env, arguments.api_key_file)
    credentials = service_api.Credentials(key, arguments.ca_file)
    return rank.run(
        _access(arguments),
        arguments.name,
        question,
        credentials,
        top=arguments.top,
        as_json=arguments.output == "json",
        color=arguments.color,
    )


_Run = Callable[[_Parser, argparse.Namespace], int]
_COMMANDS: dict[str, tuple[tuple[str, str, Callable[[_Parser], None]], _Run]] = {
    "status": (
        (
            "Services with their model, engines, pods and conditions, as a tree.",
            "  kubectl rr status\n"
            "  kubectl rr status demo --watch\n"
            "  kubectl rr status -A --color=always | less -R",
            _add_status,
        ),
        _status,
    ),
    "explain": (
        (
            "Why a service is not ready: its first condition that is not True, what the runbook "
            "says\nabout it, the newest warnings, and where to look further.",
            "  kubectl rr explain demo\n  kubectl rr explain demo -n shop",
            _add_explain,
        ),
        _explain,
    ),
    "rank": (
        (
            "Rank passages for a query, through a port-forward that ends with the command.",
            '  kubectl rr rank demo "shrink photos" "image tools" "text editor"\n'
            '  kubectl rr rank demo "shrink photos" -f passages.txt --top 3\n'
            '  apt-cache search photo | kubectl rr rank demo "shrink photos" - -o json\n'
            '  kubectl rr rank demo "shrink photos" "image tools" --key-env RANK_API_KEY',
            _add_rank,
        ),
        _rank,
    ),
    "events": (
        (
            "Events of a service and of its engines, Jobs, Deployments, pods and claims, by time.",
            "  kubectl rr events demo\n  kubectl rr events demo --warnings --watch",
            _add_events,
        ),
        _events,
    ),
    "rollout": (
        (
            "How a change gets to the traffic: see it (status, history), hold it back (pause, "
            "resume), let\nit go on without waiting (promote), take it back (abort), serve a "
            "former revision (undo), or\ntry again what was given up or undone (retry). pause and "
            "resume set spec.rollout.paused, the\nothers annotations reranker.dev/rollout-…; the "
            "operator does the rest.\n`kubectl rr rollout VERB --help` tells more.",
            "  kubectl rr rollout status demo --watch\n"
            "  kubectl rr rollout promote demo --full\n"
            "  kubectl rr rollout undo demo --to 9f8e7d6c",
            _add_rollout,
        ),
        _rollout,
    ),
    "diff": (
        (
            "What the operator would change about a service's pods if it were not paused, or what "
            "it is\nchanging now. Exit code 0 when that is nothing, else 1.",
            "  kubectl rr diff demo\n  kubectl rr diff demo -n shop",
            _add_diff,
        ),
        _diff,
    ),
}
