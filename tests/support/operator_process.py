"""The operator as a process, from the sources, and a kubeconfig that leads it to an API server."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = os.pathsep.join(str(ROOT / part) for part in ("operator/src", "contracts/src"))


def write_kubeconfig(path: Path, server: str, user: Mapping[str, str] | None = None) -> Path:
    """One cluster, one user; over TLS its certificate is not checked."""
    cluster: dict[str, Any] = {"server": server}
    if server.startswith("https:"):
        cluster["insecure-skip-tls-verify"] = True
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": dict(user or {})}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    path.write_text(json.dumps(config))
    return path


def start_operator(
    kubeconfig: Path, settings: Mapping[str, str], **how: Any
) -> "subprocess.Popen[Any]":
    """`settings` by the names of `Config`'s fields; `how` is passed on to Popen."""
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": _SOURCES}
    environment |= {f"RERANKER_OPERATOR_{key.upper()}": text for key, text in settings.items()}
    command = [sys.executable, "-m", "reranker_operator.main"]
    return subprocess.Popen(command, env=environment, **how)
