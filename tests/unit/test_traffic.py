"""The client that counts: nothing but a right answer is ok."""

import http.server
import itertools
import json
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest
from support.traffic import Count, Question, Traffic, table_row

QUESTION = Question("demo", "q", ("a", "b"))
KNOWN = {QUESTION: [(1.0, 2.0), (5.0, 3.0)]}


def ranked(*scores: float) -> bytes:
    """As NIM answers."""
    rows = [{"index": index, "logit": score} for index, score in enumerate(scores)]
    return json.dumps({"rankings": rows}).encode()


class Answers(http.server.BaseHTTPRequestHandler):
    """One after the other; None is a connection that ends."""

    protocol_version = "HTTP/1.1"
    turn: ClassVar[Iterator[tuple[int, dict[str, str], bytes] | None]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = next(self.turn)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        """Nothing."""


@pytest.mark.parametrize("kind", ["http kept", "http new"])
def test_every_request_is_counted_as_what_it_is(kind: str) -> None:
    answers = [
        (200, {}, ranked(1.0, 2.0)),
        (200, {}, ranked(5.0002, 3.0)),
        (200, {}, ranked(1.0, 3.0)),
        (200, {}, ranked(1.0)),
        (200, {}, b"{}"),
        (503, {"Retry-After": "1"}, b""),
        (429, {"Retry-After": "1"}, b""),
        (503, {}, b""),
        (500, {"Retry-After": "1"}, b""),
        None,
    ]
    Answers.turn = itertools.chain(answers)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        traffic = Traffic("127.0.0.1", [QUESTION], per_second=100, kinds=[kind],
                          at_most=len(answers), http_port=server.server_port)  # type: ignore[list-item]  # fmt: skip
        with traffic:
            traffic.finish()
        server.shutdown()
    count = Count(traffic.sent, KNOWN)
    assert (len(count.sent), count.ok, len(count.refusals), len(count.failures)) == (10, 2, 2, 6)
    assert count.different(QUESTION) == 3
    assert table_row("change", count).startswith("| change | 10 | 2 | 2 | 6 |")


def test_a_server_that_is_not_there_fails_every_request() -> None:
    with Traffic(
        "127.0.0.1", [QUESTION], per_second=200, at_most=20, http_port=1, grpc_port=1
    ) as traffic:
        traffic.finish()
    count = Count(traffic.sent, KNOWN)
    assert (len(count.failures), count.ok, count.refusals) == (20, 0, [])
