"""Usage, and clusters that can't be asked: one line, no traceback, exit code 2."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_rr import cli, terminal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sattus"], "there is no command 'sattus'; see `kubectl rr --help`"),
        (["explain"], "the following arguments are required: NAME; see `kubectl rr explain"),
        (["status", "../x"], "'../x' is no name of a Kubernetes object"),
        (["status", "-n", "a\x1b[2Jb"], "is no name of a Kubernetes object"),
        (["status", "demo", "-A"], "a service can't be named across all namespaces"),
        (["events", "demo", "--wat"], "unrecognized arguments: --wat"),
        (["status", "--kubeconfig=/nowhere"], "no usable kubeconfig (/nowhere)"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, rr: Any) -> None:
    done = rr(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err


def test_help_has_examples_and_loads_nothing(rr: Any) -> None:
    assert "kubectl rr explain demo" in rr("--help").out
    assert rr().code == 2
    for command in cli._COMMANDS:
        assert f"examples:\n  kubectl rr {command}" in rr(command, "--help").out
    assert "kubectl rr rollout " in rr("--help").out
    for verb in cli._VERBS:
        page = rr("rollout", verb, "--help").out
        assert f"usage: kubectl rr rollout {verb} " in page
        assert f"examples:\n  kubectl rr rollout {verb} demo\n" in page
        assert ("--to " in page) == (verb == "undo")
        assert rr("rollout", "-n", "shop", verb, "-h").out == page
    loads = "import sys, kubectl_rr.cli; print({'kubernetes', 'rich', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_options_may_stand_before_the_command(rr: Any, api: Any) -> None:
    done = rr("-n", "shop", f"--kubeconfig={api.kubeconfig}", "status", "demo")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("content", ["", "- a\n- list", "{", "a: [1", "\0", "contexts: 7"])
def test_a_kubeconfig_that_is_none(content: str, tmp_path: Path, rr: Any) -> None:
    file = tmp_path / "config"
    file.write_text(content, encoding="utf-8")
    done = rr("status", f"--kubeconfig={file}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("kubectl rr: no usable kubeconfig")


def test_a_context_is_enough_without_a_current_one(rr: Any, api: Any) -> None:
    config = yaml.safe_load(api.kubeconfig.read_text(encoding="utf-8"))
    del config["current-context"]
    api.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert rr("status", "demo", "--context=test", api=api).code == 0
    assert rr("status", "demo", "--context=other", api=api).code == 2


@pytest.mark.parametrize(
    ("status", "answer", "code", "message"),
    [
        (401, {"message": "Unauthorized"}, 2, "refused the credentials: Unauthorized"),
        (403, {"message": "no rights\x1b[2J"}, 1, "no rights"),
        (404, b"404 page not found", 2, "install the operator's CRDs first"),
        (404, {"message": '"demo" not found', "details": {"name": "demo"}}, 1, '"demo" not found'),
        (500, b"", 1, "the API server answered 500"),
        (200, b"<html>", 2, "does not answer like a Kubernetes API server"),
        (200, b"[" * 100_000, 2, "does not answer like a Kubernetes API server"),
    ],
)
def test_what_the_cluster_may_answer(
    status: int, answer: Any, code: int, message: str, rr: Any, api: Any
) -> None:
    api.answer_all = (status, answer)
    for command in ("status", "explain", "events"):
        done = rr(command, "demo", api=api)
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
        assert message in done.err
        assert "\x1b" not in done.err


def test_a_cluster_that_is_not_there(rr: Any, api: Any) -> None:
    config = yaml.safe_load(api.kubeconfig.read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    api.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
    done = rr("status", api=api)
    assert done.code == 2
    assert done.err.startswith("kubectl rr: http://127.0.0.1:1 does not answer: ")
    assert done.err.endswith("Connection refused\n")


def test_a_terminal_of_another_encoding_gets_plain_characters() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    screen = terminal.console("never", stream)
    terminal.show(screen, "✓ ● ö …")
    stream.flush()
    assert raw.getvalue() == b"+ * ? ~\n"


def test_long_texts_are_cut() -> None:
    assert len(terminal.clean("x" * 10_000_000)) == terminal.LONGEST_TEXT
    assert terminal.clean("\x1b[" * 10_000_000) == ""


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word: str, rr: Any) -> None:
    assert rr(word).out.startswith("kubectl rr 0.")


def test_what_is_not_found_is_told_with_its_namespace(rr: Any, api: Any) -> None:
    done = rr("explain", "nobody", "-n", "shop", api=api)
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith("\"nobody\" not found in namespace 'shop'\n")
