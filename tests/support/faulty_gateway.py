"""The gateway of the same image, made worse from within: see `tests/e2e/faults.py`."""

from support.cluster import ROOT
from support.kubectl import Json, Kubectl

_PROGRAM = ROOT / "tests/e2e/faults.py"
_NAME, _PATH = "faults", "/faults"


def install_faults(kubectl: Kubectl) -> None:
    """What the pods of the namespace mount; Python runs it before the gateway's own code."""
    kubectl("create", "configmap", _NAME, f"--from-file=sitecustomize.py={_PROGRAM}")


def with_fault(serving: Json, fault: str) -> Json:
    """This `spec.serving`, whose gateway has the fault."""
    gateway = {
        "env": [
            {"name": "PYTHONPATH", "value": f"{_PATH}:/app:/opt/gateway"},
            {"name": "FAULT", "value": fault},
        ],
        "volumeMounts": [{"name": _NAME, "mountPath": _PATH, "readOnly": True}],
    }
    pod = {"volumes": [{"name": _NAME, "configMap": {"name": _NAME}}]}
    return serving | {"gateway": serving["gateway"] | gateway, "pod": pod}
