"""Why Triton does not come up, from the end of its log.

With explicit model control its last line names the cause of a failed load, and lines of a
traceback may follow; before it stand kilobytes of tables, so little else fits the message that the
kubelet keeps.
"""

import re

from reranker_contracts import StageReason
from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes.finding import Finding, finding
from reranker_operator.core.wording import quote

_LOAD = re.compile(
    r"load failed for model '[^']*': version \d+ is at UNAVAILABLE state: (?P<why>.*?)"
    r"(?:;?\s*$|\n\s*At:)|failed to load '[^']*' version \d+: (?P<line>[^\n]*)",
    re.DOTALL,
)
_NOT_CREATED = re.compile(r"^error: creating server: (?P<why>.*)", re.MULTILINE)
_BACKEND = re.compile(r"unable to find (backend library for backend )?'[^']*'")
#: CUDA's errors 35, 803 and 804, and the words of NVIDIA's container runtime.
_DRIVER = re.compile(
    r"CUDA driver version is insufficient for CUDA runtime version|"
    r"unsupported display driver / cuda driver combination|"
    r"forward compatibility was attempted on non supported HW|"
    r"unsatisfied condition: cuda|CUDA failure (35|803|804)\b"
)
#: Words of our backend, of CUDA and of Triton's core.
_NO_GPU = re.compile(r"needs a GPU|no CUDA-capable device|kind KIND_GPU but no GPUs are available")
_OTHER_VERSION = re.compile(r"built with TensorRT-RTX .*, this image has")
_NO_PROGRAM = re.compile(r"executable file not found|not found in \$PATH|no such file or directory")
#: The supervisor's shell.
_NO_SERVER = re.compile(r"^.*: tritonserver: command not found", re.MULTILINE)
_IMAGE = "spec.serving.triton.image"


def unstartable(name: str, text: str) -> Finding | None:
    """The container runtime's words on a container that does not start, where they are special."""
    if _DRIVER.search(text):
        return _too_old(text)
    if name == "triton" and _NO_PROGRAM.search(text):
        return _without_server(text)
    return None


def unloadable(message: str, log: str) -> Finding | None:
    """What the end of Triton's log says about why it did not start."""
    loading = _LOAD.search(message)
    created = _NOT_CREATED.search(message)
    if missing := _NO_SERVER.search(message):
        return _without_server(missing[0])
    if loading is None and created is None:
        return None
    found = loading or created
    words = next(text for text in found.groups() if text is not None) if found else ""
    if _DRIVER.search(words):
        return _too_old(words)
    if _NO_GPU.search(words):
        remedy = "choose nodes that have it by spec.accelerator.nodeSelector"
        what = f"the node can't run this engine: {quote(words)}"
        return finding(StageReason.TARGET_ABSENT, what, remedy)
    if _BACKEND.search(words) or _OTHER_VERSION.search(words):
        return finding(
            Reason.TRITON_IMAGE_UNSUITABLE,
            f"the image of container triton can't serve this engine: {quote(words)}",
            f"use an image with this backend, of the builder's version, in {_IMAGE}",
        )
    return finding(Reason.TRITON_LOAD_FAILED, f"Triton can't load the engine: {quote(words)}", log)


def _without_server(words: str) -> Finding:
    return finding(
        Reason.TRITON_IMAGE_UNSUITABLE,
        f"the image of container triton has no tritonserver, or no bash: {quote(words)}",
        f"use a Triton image in {_IMAGE}",
    )


def _too_old(words: str) -> Finding:
    return finding(
        Reason.DRIVER_TOO_OLD,
        f"the node's NVIDIA driver is too old for the image: {quote(words)}",
        f"update the driver, choose other nodes in spec.accelerator, or an older {_IMAGE}",
    )
