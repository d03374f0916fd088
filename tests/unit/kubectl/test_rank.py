"""A question through a port-forward that never outlives the command."""

import copy
import io
import json
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.certificates import issue
from support.rr_worlds import WORLDS

from kubectl_rr import forward, rank
from kubectl_rr.service_api import ServiceApi

_FORWARDS = """echo "Forwarding from 127.0.0.1:$PORT -> 8000"
echo "Forwarding from [::1]:$PORT -> 8000"
exec tail -f /dev/null"""


@dataclass
class Gateway:
    """A ranking API that likes long passages."""

    status: int = 200
    answer: Any = None
    asked: list[Any] = field(default_factory=list)
    server: Any = None

    def respond(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "org/demo"}]}
        self.asked.append(body)
        if self.answer is not None or self.status != 200:
            return self.status, self.answer
        texts = [passage["text"] for passage in body["passages"]]
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        rows = [{"index": index, "logit": len(texts[index]) - 4.5} for index in order]
        return 200, {"rankings": rows, "usage": {"total_tokens": 12}}


@dataclass
class Kubectl:
    """A kubectl on the PATH that does what its script says."""

    folder: Path

    def does(self, script: str) -> None:
        program = self.folder / "kubectl"
        record = f'echo "$@" > {self.folder}/arguments; echo $$ > {self.folder}/pid'
        program.write_text(f"#!/bin/sh\n{record}\n{script}\n", encoding="utf-8")
        program.chmod(0o755)

    @property
    def arguments(self) -> str:
        return (self.folder / "arguments").read_text(encoding="utf-8").strip()

    def has_ended(self) -> bool:
        """Also when it was ended before its first word."""
        try:
            os.kill(int((self.folder / "pid").read_text(encoding="utf-8")), 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        return False


@pytest.fixture
def gateway(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Gateway:
    gateway = Gateway()
    gateway.server = serve(gateway.respond)
    monkeypatch.setenv("PORT", str(gateway.server.port))
    return gateway


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> Kubectl:
    kubectl = Kubectl(tmp_path / "bin")
    kubectl.folder.mkdir()
    kubectl.does(_FORWARDS)
    monkeypatch.setenv("PATH", f"{kubectl.folder}{os.pathsep}{os.environ['PATH']}")
    return kubectl


def test_passages_are_printed_best_first_and_the_forward_ends(
    rr: Any, api: Any, kubectl: Kubectl, gateway: Gateway
) -> None:
    done = rr("rank", "demo", "q", "bb", "--top", "2", "\x1b[2Jlonger\none", "c", api=api)
    assert (done.code, done.err) == (0, "")
    assert done.out == "  1.    9.500  longer one\n  2.   -2.500  bb\n"
    assert gateway.asked == [
        {
            "model": "org/demo",
            "query": {"text": "q"},
            "passages": [{"text": "bb"}, {"text": "\x1b[2Jlonger\none"}, {"text": "c"}],
        }
    ]
    assert kubectl.arguments == (
        f"port-forward -n shop --kubeconfig {api.kubeconfig} --address=127.0.0.1 service/demo :8000"
    )
    assert kubectl.has_ended()


def test_json_has_everything_and_nothing_that_a_terminal_obeys(
    rr: Any, api: Any, kubectl: Kubectl, gateway: Gateway
) -> None:
    done = rr(
        "rank", "demo", "q", "-o", "json", "--truncate=END", "ü\x9b\u202e😀\U000e0001", api=api
    )
    assert json.loads(done.out) == {
        "model": "org/demo",
        "rankings": [{"index": 0, "logit": 0.5, "text": "ü\x9b\u202e😀\U000e0001"}],
        "usage": {"total_tokens": 12},
    }
    assert '"ü\\u009b\\u202e😀\\udb40\\udc01"' in done.out
    assert gateway.asked[0]["truncate"] == "END"


@pytest.mark.parametrize(
    ("content", "passages"),
    [
        ('["a\\nb", "c"]', ["a\nb", "c"]),
        ("\ufeffone\r\n\n  two\n", ["one", "  two"]),
        ("[1] no JSON\n[2] at all", ["[1] no JSON", "[2] at all"]),
    ],
)
def test_passages_come_from_a_file_or_standard_input(
    content: str, passages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passages"
    file.write_text(content, encoding="utf-8", newline="")
    assert list(rank.read_question("q", [], str(file), None).passages) == passages
    stream = io.TextIOWrapper(io.BytesIO(content.encode()))
    monkeypatch.setattr("sys.stdin", stream)
    assert list(rank.read_question("q", ["-"], None, None).passages) == passages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["q"], "no passages: give some, or -f FILE, or - for standard input"),
        ([" ", "p"], "the query is empty"),
        (["q", "p", "-f", "x"], "give passages or -f FILE, not both"),
        (["q", "-f", "/nowhere"], "/nowhere: No such file or directory"),
        (["q", "-f", "a\0b"], "ab: embedded null byte"),
        (["q", "-f", "."], ".: Is a directory"),
        (["q", "p", "--top", "0"], "argument --top: '0' is no whole number above 0; see "
         "`kubectl rr rank --help`"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_asks_nobody(
    arguments: list[str], message: str, rr: Any
) -> None:
    done = rr("rank", "demo", *arguments)
    assert (done.code, done.out, done.err) == (2, "", f"kubectl rr: {message}\n")


def test_files_that_hold_something_else_are_refused(tmp_path: Path, rr: Any) -> None:
    file = tmp_path / "passages"
    file.write_text('["a", 1]', encoding="utf-8")
    assert "something else than strings" in rr("rank", "demo", "q", "-f", str(file)).err
    file.write_bytes(b"\xff\xfe")
    assert "not UTF-8 text" in rr("rank", "demo", "q", "-f", str(file)).err


def test_a_service_without_pods_is_not_asked(rr: Any, api: Any, kubectl: Kubectl) -> None:
    api.world = WORLDS["building"]
    done = rr("rank", "demo", "q", "p", api=api)
    assert done.code == 1
    assert "does not serve yet: waits for the engine; see `kubectl rr explain demo`" in done.err
    assert not (kubectl.folder / "pid").exists()


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (422, {"message": "Input length 9 exceeds\x1b[5m 8"}, "answered 422: Input length 9 exc"),
        (503, b"<html>", "the service answered 503"),
        (200, b"[" * 100_000, "what answers is not a ranking API"),
        (200, {"rankings": [{"index": 7, "logit": 1}]}, "what answers is not a ranking API"),
        (200, {"rankings": []}, "the service did not rank every passage"),
    ],
)
def test_a_refusal_is_one_line(
    status: int, answer: Any, message: str, rr: Any, api: Any, kubectl: Kubectl, gateway: Gateway
) -> None:
    gateway.status, gateway.answer = status, answer
    done = rr("rank", "demo", "q", "p", api=api)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert "\x1b" not in done.err
    assert kubectl.has_ended()


def serving(**spec: Any) -> dict[str, Any]:
    """The world of a service that is ready and has this `spec.serving`."""
    world = copy.deepcopy(WORLDS["ready"])
    world["rerankerservices"][0]["spec"]["serving"] = spec
    return world


def test_a_key_comes_from_the_environment_or_a_file(
    rr: Any,
    api: Any,
    kubectl: Kubectl,
    gateway: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api.world = serving(auth={"secretRef": {"name": "keys"}})
    asked = rr("rank", "demo", "q", "p", api=api)
    assert (asked.code, asked.out) == (2, "")
    assert "demo asks for an API key; give --key-env VARIABLE or --api-key-file FILE" in asked.err
    assert not (kubectl.folder / "pid").exists()
    monkeypatch.setenv("RANK_KEY", "s3cret")
    assert rr("rank", "demo", "q", "p", "--key-env", "RANK_KEY", api=api).code == 0
    file = tmp_path / "key"
    file.write_text("of-file\n", encoding="utf-8")
    assert rr("rank", "demo", "q", "p", "--api-key-file", str(file), api=api).code == 0
    assert gateway.server.keys == ["Bearer s3cret"] * 2 + ["Bearer of-file"] * 2


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb", "k\u00fc", "x" * 4097])
def test_what_is_no_key_is_refused_and_not_repeated(
    content: str, rr: Any, api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    monkeypatch.setenv("RANK_KEY", content)
    refused = rr("rank", "demo", "q", "p", "--api-key-file", str(file), api=api)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"{file}: no API key" in refused.err
    for name in ("RANK_KEY", "the-key-by-mistake"):
        refused = rr("rank", "demo", "q", "p", "--key-env", name, api=api)
        assert refused.code == 2
        assert refused.err == (
            "kubectl rr: --key-env: the environment has no variable of this name that holds a key\n"
        )


def test_tls_is_spoken_where_the_service_does_and_verified_with_a_ca(
    rr: Any, api: Any, kubectl: Kubectl, gateway: Gateway, tmp_path: Path
) -> None:
    for folder, san in (("right", "DNS:demo.shop.svc"), ("wrong", "DNS:other.shop.svc")):
        issue(tmp_path / folder, folder, san)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "right/tls.crt", tmp_path / "right/tls.key")
    gateway.server.socket = context.wrap_socket(gateway.server.socket, server_side=True)
    api.world = serving(tls={"secretName": "rank-tls"})
    ask = ["rank", "demo", "q", "p"]
    any_certificate = rr(*ask, api=api)
    assert any_certificate.out.startswith("  1. ")
    assert "certificate was not verified" in any_certificate.err
    verified = rr(*ask, "--ca-file", str(tmp_path / "right/tls.crt"), api=api)
    assert (verified.code, verified.err) == (0, "")
    before = len(gateway.asked)
    other = rr(*ask, "--ca-file", str(tmp_path / "wrong/tls.crt"), api=api)
    assert (other.code, other.out) == (1, "")
    assert "the service's certificate for demo.shop.svc: self-signed certificate" in other.err
    # The right CA, and a certificate for another name.
    context.load_cert_chain(tmp_path / "wrong/tls.crt", tmp_path / "wrong/tls.key")
    other = rr(*ask, "--ca-file", str(tmp_path / "wrong/tls.crt"), api=api)
    assert "Hostname mismatch" in other.err
    assert len(gateway.asked) == before
    assert kubectl.has_ended()


def test_a_ca_is_a_file_of_certificates_and_for_tls_only(
    rr: Any, api: Any, kubectl: Kubectl, tmp_path: Path
) -> None:
    ask = ["rank", "demo", "q", "p", "--ca-file"]
    plain = rr(*ask, "/nowhere", api=api)
    assert (plain.code, plain.err) == (
        2, "kubectl rr: demo serves plain HTTP; leave out --ca-file\n",
    )  # fmt: skip
    api.world = serving(tls={"secretName": "rank-tls"})
    assert "/nowhere: No such file or directory" in rr(*ask, "/nowhere", api=api).err
    (tmp_path / "none").write_text("none", encoding="utf-8")
    none = rr(*ask, str(tmp_path / "none"), api=api)
    assert (none.code, none.err.count("\n")) == (2, 1)
    assert kubectl.has_ended()


def test_a_service_without_nims_dialect_is_not_asked(rr: Any, api: Any, kubectl: Kubectl) -> None:
    api.world = serving(dialects=["cohere", "grpc"])
    done = rr("rank", "demo", "q", "p", api=api)
    assert (done.code, done.out) == (1, "")
    assert "demo serves cohere, grpc, and" in done.err
    assert "add nim to serving.dialects" in done.err
    assert not (kubectl.folder / "pid").exists()
    api.world = serving(dialects=["cohere", "nim"])
    assert rr("rank", "demo", "q", "p", api=api).code == 0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'error: no pods\x1b[2J' >&2; exit 1", "kubectl port-forward ended: no pods"),
        ("exit 1", "kubectl port-forward ended: it said nothing"),
        (
            "echo 'Forwarding from 127.0.0.1:1 -> 8000'; echo 'error: lost' >&2; exec tail -f -",
            "the service did not answer: [Errno 111] Connection refused",
        ),
    ],
)
def test_a_forward_that_fails_is_one_line_with_what_kubectl_said(
    script: str, message: str, rr: Any, api: Any, kubectl: Kubectl
) -> None:
    kubectl.does(script)
    done = rr("rank", "demo", "q", "p", api=api)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert "\x1b" not in done.err
    assert kubectl.has_ended()


def test_a_kubectl_that_will_not_end_is_killed(
    rr: Any, api: Any, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_STOP_SECONDS", 0.05)
    kubectl.does(f"trap '' TERM\n{_FORWARDS}")
    assert rr("rank", "demo", "q", "p", api=api).code == 0
    assert kubectl.has_ended()


def test_ctrl_c_is_quiet_and_ends_the_forward(
    rr: Any, api: Any, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_api: ServiceApi, _question: rank.Question) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rank, "ask", interrupted)
    done = rr("rank", "demo", "q", "p", api=api)
    assert (done.code, done.out, done.err) == (130, "", "")
    assert kubectl.has_ended()


def test_without_a_kubectl_that_is_said(
    rr: Any, api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = rr("rank", "demo", "q", "p", api=api)
    assert (done.code, done.err) == (2, "kubectl rr: kubectl is not on the PATH\n")
