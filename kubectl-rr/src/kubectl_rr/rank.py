"""`kubectl rr rank`: one question to the ranking API, through a port-forward of its own."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from kubectl_rr.cluster import Access, connect
from kubectl_rr.errors import RequestFailed, Unusable
from kubectl_rr.forward import port_forward
from kubectl_rr.raw import number, rows, table, text
from kubectl_rr.read import service_of
from kubectl_rr.service_api import Credentials, ServiceApi
from kubectl_rr.snapshot import Service
from kubectl_rr.terminal import clean, complain, console, plain_json

_PORT = 8000
_LONGEST_INPUT = 64 << 20


@dataclass(frozen=True)
class Question:
    """What to rank; `truncate` None leaves it to the service."""

    query: str
    passages: tuple[str, ...]
    truncate: str | None = None


@dataclass(frozen=True)
class Ranked:
    """One passage with its place in the question and its score."""

    index: int
    logit: float
    text: str


@dataclass(frozen=True)
class Answer:
    """Passages, best first."""

    model: str
    ranked: tuple[Ranked, ...]
    tokens: float | None = None


def run(
    access: Access,
    name: str,
    question: Question,
    credentials: Credentials,
    *,
    top: int | None,
    as_json: bool,
    color: str,
) -> int:
    """Ask and print."""
    cluster = connect(access)
    service = service_of(cluster, cluster.namespace, name)
    _check(service, credentials)
    options = access.options(cluster.namespace)
    with port_forward(name, _PORT, options) as forward:
        answer = ask(ServiceApi(forward, service, credentials), question)
    if service.serving.tls and credentials.ca_file is None:
        complain(
            "the service's certificate was not verified; the way to it was the API server's "
            "connection, and --ca-file FILE verifies it"
        )
    shown = answer.ranked[:top]
    if as_json:
        sys.stdout.write(plain_json(_json(answer, shown)))
    else:
        _print(console(color), shown)
    return 0


def read_question(
    query: str, passages: Sequence[str], file: str | None, truncate: str | None
) -> Question:
    """From the command line, a file, or `-` for standard input. Raises Unusable."""
    if not query.strip():
        raise Unusable("the query is empty")
    if file is None and list(passages) == ["-"]:
        file, passages = "-", ()
    if file is not None and passages:
        raise Unusable("give passages or -f FILE, not both")
    found = list(passages) if file is None else _parse(_read(file), file)
    if not found:
        raise Unusable("no passages: give some, or -f FILE, or - for standard input")
    return Question(query, tuple(found), truncate)


def ask(api: ServiceApi, question: Question) -> Answer:
    """Find out the model's name, then rank. Raises RequestFailed."""
    models = api.call("GET", "/v1/models")
    model = next((text(row, "id") for row in rows(models, "data")), "")
    body: dict[str, Any] = {
        "model": model,
        "query": {"text": question.query},
        "passages": [{"text": passage} for passage in question.passages],
    }
    if question.truncate is not None:
        body["truncate"] = question.truncate
    return _answer(model, question, api.call("POST", "/v1/ranking", body))


def _check(service: Service, credentials: Credentials) -> None:
    """What is known before a forward, which to a Service without pods would wait long."""
    name, serving = service.name, service.condition("Serving")
    if serving is None or serving.status != "True":
        why = f": {serving.message}" if serving is not None and serving.message else ""
        raise RequestFailed(f"{name} does not serve yet{why}; see `kubectl rr explain {name}`")
    dialects = service.serving.dialects
    if dialects and "nim" not in dialects:
        raise RequestFailed(
            f"{name} serves {', '.join(dialects)}, and `kubectl rr rank` asks in NIM's dialect; "
            "add nim to serving.dialects"
        )
    if service.serving.keys and credentials.key is None:
        raise Unusable(
            f"{name} asks for an API key; give --key-env VARIABLE or --api-key-file FILE"
        )


def _read(file: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_LONGEST_INPUT + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_LONGEST_INPUT + 1)
    except (OSError, ValueError) as error:
        raise Unusable(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _LONGEST_INPUT:
        raise Unusable(f"{file}: more than {_LONGEST_INPUT >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable(f"{file}: not UTF-8 text") from None


def _parse(content: str, file: str) -> list[str]:
    """A JSON list of strings; anything that is no JSON list is one passage per line."""
    try:
        found = json.loads(content) if content.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        return [line for line in content.splitlines() if line.strip()]
    if not all(isinstance(entry, str) for entry in found):
        raise Unusable(f"{file}: the JSON list holds something else than strings")
    return found


def _answer(model: str, question: Question, answer: object) -> Answer:
    ranked = []
    for row in rows(answer, "rankings"):
        index, logit = number(row, "index"), number(row, "logit")
        if index is None or logit is None or not 0 <= index < len(question.passages):
            raise RequestFailed("what answers is not a ranking API")
        ranked.append(Ranked(int(index), logit, question.passages[int(index)]))
    if len({row.index for row in ranked}) != len(question.passages):
        raise RequestFailed("the service did not rank every passage")
    return Answer(model, tuple(ranked), number(table(answer, "usage"), "total_tokens"))


def _print(screen: Console, ranked: Sequence[Ranked]) -> None:
    """On a terminal one line each, cut at its edge; elsewhere the whole passage."""
    cut = screen.is_terminal
    for place, row in enumerate(ranked, start=1):
        line = Text.assemble(
            (f"{place:3}. ", "dim"), (f"{row.logit:8.3f}", "bold"), f"  {clean(row.text)}"
        )
        line.no_wrap, line.overflow = True, "ellipsis" if cut else "ignore"
        screen.print(line, crop=cut)


def _json(answer: Answer, ranked: Sequence[Ranked]) -> str:
    rankings = [{"index": row.index, "logit": row.logit, "text": row.text} for row in ranked]
    whole: dict[str, Any] = {"model": answer.model, "rankings": rankings}
    if answer.tokens is not None and math.isfinite(answer.tokens):
        whole["usage"] = {"total_tokens": int(answer.tokens)}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
