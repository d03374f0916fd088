"""The weights of an ONNX graph in one file beside it, without ever holding them in memory.

Format: onnx.proto, TensorProto.external_data: keys `location`, `offset` and `length`, in bytes.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import onnx

from engine_builder.artefacts import ONNX_DATA

#: Smaller tensors stay in the graph; shape inference looks at them.
_SMALLEST = 1024
#: Bytes, so that the file can be mapped.
_ALIGNMENT = 4096


def save_as_exported(model: onnx.ModelProto, out: Path, prepared: Path) -> None:
    """Write a graph whose weights are in memory; they go where those of the exported one are."""
    large = (prepared / ONNX_DATA).exists()
    onnx.save_model(model, out, save_as_external_data=large, location=ONNX_DATA)


def gather_weights(graph: Path, out: Path, data: str) -> None:
    """Write `graph` to `out` and its weights to the file `data` beside that.

    Weights of `graph` may lie in it or in files beside it, which are removed one by one.
    """
    model = onnx.load(str(graph), load_external_data=False)
    for tensor in _constants(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _take_in(tensor, graph.parent / _value(tensor, "location"))
    with (out.parent / data).open("wb") as stream:
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _append(stream, tensor, data, graph.parent / _value(tensor, "location"))
            elif len(tensor.raw_data) >= _SMALLEST:
                _append(stream, tensor, data, None)
    onnx.save_model(model, str(out))


def _constants(graph: Any) -> Iterator[Any]:
    """Tensors in attributes of nodes: the exporter puts even single numbers into files."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _constants(attribute.g)


def _take_in(tensor: Any, source: Path) -> None:
    """Move the bytes of `source` into the graph."""
    tensor.raw_data = source.read_bytes()
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
    source.unlink()


def _append(stream: BinaryIO, tensor: Any, data: str, source: Path | None) -> None:
    """Move one tensor's bytes to the end of the file: those of `source`, or its own."""
    stream.write(bytes(-stream.tell() % _ALIGNMENT))
    offset = stream.tell()
    if source is None:
        stream.write(tensor.raw_data)
        tensor.ClearField("raw_data")
    else:
        with source.open("rb") as file:
            shutil.copyfileobj(file, stream, 1 << 20)
        source.unlink()
    entries = {"location": data, "offset": offset, "length": stream.tell() - offset}
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def _value(tensor: Any, key: str) -> str:
    return next(str(entry.value) for entry in tensor.external_data if entry.key == key)
