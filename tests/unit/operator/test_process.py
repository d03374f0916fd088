"""The operator as a process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [{"name": "nobody", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "nobody"}}],
    "current-context": "none",
}


@pytest.mark.timeout(60)
def test_an_ordinary_stop_is_no_failure(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(_KUBECONFIG))
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        "RERANKER_OPERATOR_LEADER_ELECTION": "false",
        "RERANKER_OPERATOR_HTTP_PORT": "0",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "reranker_operator.main"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        # kopf is at work: it has its own way with signals.
        assert any('"kopf' in line for line in process.stdout), "kopf has said nothing"
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait() == 0, rest
        assert "Traceback" not in rest
