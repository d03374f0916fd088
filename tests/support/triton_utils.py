"""A stand-in for Triton's `triton_python_backend_utils`, which exists only inside a Triton process.

Tensors go over DLPack both ways, as there.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from support.cluster import ROOT

TRITON = ROOT / "triton"


def load_backend(folder: Path) -> ModuleType:
    """The model.py of a backend, as a fresh process imports it."""
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Response:
    output_tensors: list[Any]
    error: Any = None


class Utils(ModuleType):
    """What the backends use of triton_python_backend_utils."""

    def __init__(self) -> None:
        super().__init__("triton_python_backend_utils")
        self.said: list[str] = []
        said = self.said

        class Logger:
            log_info = staticmethod(said.append)
            log_warn = staticmethod(said.append)

        class Tensor:
            def __init__(self, name: str, value: np.ndarray) -> None:
                self.name, self.value = name, value

            @staticmethod
            def from_dlpack(name: str, capsule: object) -> "Tensor":
                @dataclass
                class Holder:
                    capsule: object

                    def __dlpack__(self, **_: object) -> object:
                        return self.capsule

                    def __dlpack_device__(self) -> tuple[int, int]:
                        return (1, 0)

                holder: Any = Holder(capsule)
                return Tensor(name, np.from_dlpack(holder).copy())

        self.Logger, self.Tensor = Logger, Tensor
        self.InferenceResponse = Response
        self.TritonError = str

    @staticmethod
    def get_input_tensor_by_name(request: dict[str, np.ndarray], name: str) -> np.ndarray:
        return request[name]
