"""Tensors of a request to texts, scores to tensors of an answer.

Source: KServe's Open Inference Protocol 2 for BYTES tensors and raw contents, the gRPC page of
NVIDIA's Reranking NIM for names and shapes.

| tensor | datatype | shape |
|---|---|---|
| in `query` | BYTES | [pairs, 1], or [1, 1] for all passages |
| in `passage` | BYTES | [pairs, 1] |
| out `index` | INT32 | [pairs, 1], highest logit first |
| out `logit` | FP32 | [pairs, 1], in the order of `index` |
| out `token_count` | INT32 | [pairs], in the order of `index` |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from reranker_gateway.api.dialects.base import Fields, Question
from reranker_gateway.engine import FloatArray
from reranker_gateway.errors import InvalidRequestError
from reranker_gateway.tokenise import Truncate

INPUTS: Final = {"query": ("BYTES", (-1, 1)), "passage": ("BYTES", (-1, 1))}
OUTPUTS: Final = {
    "index": ("INT32", (-1, 1)),
    "logit": ("FP32", (-1, 1)),
    "token_count": ("INT32", (-1,)),
}
_LENGTH: Final = 4
_SHOWN: Final = 64
_LONGEST_ID: Final = 128
#: Fields of a message, where a repeated one counts as often as it is there.
_MOST_FIELDS: Final = 64
#: Numbers of `inputs` and `outputs`.
_TENSORS: Final = frozenset({5, 6})
#: Source: Protocol Buffers' encoding, by wire type: bytes after the tag, and whether the length
#: of more follows it. Groups have no length; what is in them counts as fields of the message.
_VARINT, _DELIMITED = 0, 2
_FIXED: Final = {1: 8, 3: 0, 4: 0, 5: 4}
_TRUNCATE: Final[dict[str, Truncate]] = {"NONE": "NONE", "END": "END"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer repeats of its request."""

    model: str
    id: str
    #: Those that were asked for; empty for all.
    outputs: tuple[str, ...]


def check_structure(data: bytes) -> None:
    """Raises InvalidRequestError for more fields than a request for scores has.

    Parsed, an empty tensor of two bytes takes eighty, and a parameter of a tensor's its time: this
    is looked at before. A tensor's contents are of texts, and there may be many.
    """
    for number, value in _fields(data):
        if number in _TENSORS:
            for _ in _fields(value):
                pass


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number of each field, and what is in it, where that has a length."""
    at = fields = 0
    while at < len(data):
        fields += 1
        if fields > _MOST_FIELDS:
            raise InvalidRequestError(
                f"the message or a tensor has more than {_MOST_FIELDS} fields; send model_name, "
                "query, passage and parameters that are known here"
            )
        tag, at = _varint(data, at)
        kind = tag & 7
        start = at
        if kind in {_VARINT, _DELIMITED}:
            value, start = _varint(data, at)
            at = start + (value if kind == _DELIMITED else 0)
        else:
            # The parser will say what is wrong with an unknown one.
            at += _FIXED.get(kind, len(data))
        yield tag >> 3, data[start:at] if kind == _DELIMITED else b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends; one that is too long or cut off ends the data."""
    value = 0
    for shift, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    return 0, len(data)


def parse(kind: Any, data: bytes) -> Any:
    """A message of `kind`. Raises InvalidRequestError."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequestError(f"the message is no {kind.DESCRIPTOR.name}") from None


def question_of(request: Any, truncate: Truncate, max_passages: int) -> Question:
    """What a ModelInferRequest asks. Raises InvalidRequestError."""
    texts = _inputs(request, max_passages)
    queries, passages = texts["query"], texts["passage"]
    if not passages or len(queries) not in {1, len(passages)}:
        raise InvalidRequestError(
            f"query has {len(queries)} rows and passage {len(passages)}; send one query for each "
            "passage, or one for all"
        )
    asked = [output.name for output in request.outputs[: len(OUTPUTS) + 1]]
    if len(set(asked)) < len(asked) or not OUTPUTS.keys() >= set(asked):
        raise InvalidRequestError(f"outputs: ask for any of {', '.join(OUTPUTS)}, each once")
    return Question(
        queries=queries,
        passages=passages,
        model=request.model_name,
        truncate=_truncate(request.parameters, truncate),
        fields=Fields(passages="passage", cut="the parameter truncate to END"),
    )


def reply_to(request: Any) -> Reply:
    """What is kept of a ModelInferRequest with a question. Raises InvalidRequestError."""
    if len(request.id) > _LONGEST_ID:
        raise InvalidRequestError(
            f"id: {len(request.id)} characters, at most {_LONGEST_ID} are allowed"
        )
    return Reply(request.model_name, request.id, tuple(output.name for output in request.outputs))


def answer(reply: Reply, logits: FloatArray, lengths: list[int], version: str) -> Any:
    """The ModelInferResponse: all outputs, or those that were asked for."""
    order = np.argsort(-logits, kind="stable")
    arrays = {
        "index": order.astype("<i4"),
        "logit": logits[order].astype("<f4"),
        "token_count": np.asarray(lengths, dtype="<i4")[order],
    }
    response = service_pb2.ModelInferResponse(
        model_name=reply.model, model_version=version, id=reply.id
    )
    for output in reply.outputs or OUTPUTS:
        datatype, shape = OUTPUTS[output]
        response.outputs.add(name=output, datatype=datatype, shape=[len(order), *shape[1:]])
        response.raw_output_contents.append(arrays[output].tobytes())
    return response


def _inputs(request: Any, max_passages: int) -> dict[str, list[str]]:
    names = [tensor.name for tensor in request.inputs[: len(INPUTS) + 1]]
    if sorted(names) != sorted(INPUTS):
        shown = ", ".join(name[:_SHOWN] for name in names)
        raise InvalidRequestError(f"inputs: got [{shown}], send query and passage, each once")
    raw = request.raw_input_contents
    if raw and len(raw) != len(names):
        raise InvalidRequestError("raw_input_contents: send none, or one for each input")
    found = {}
    for at, tensor in enumerate(request.inputs):
        rows = _rows(tensor, max_passages)
        content = list(_elements(raw[at], rows)) if raw else tensor.contents.bytes_contents
        found[tensor.name] = _texts(tensor.name, content, rows)
    return found


def _rows(tensor: Any, max_passages: int) -> int:
    shape = list(tensor.shape[:3])
    if tensor.datatype != "BYTES" or len(shape) not in {1, 2} or shape[1:] not in ([], [1]):
        raise InvalidRequestError(
            f"{tensor.name}: {tensor.datatype[:_SHOWN]} of shape {shape}, send BYTES of shape "
            "[pairs, 1]"
        )
    if not 0 < shape[0] <= max_passages:
        raise InvalidRequestError(
            f"{tensor.name}: {shape[0]} rows, at least 1 and at most {max_passages} are allowed"
        )
    return int(shape[0])


def _elements(raw: bytes, rows: int) -> Iterator[bytes]:
    """Each element follows its length, four bytes, little end first. At most one above `rows`."""
    at = 0
    for _ in range(rows + 1):
        if at == len(raw):
            return
        start = at + _LENGTH
        end = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or end > len(raw):
            raise InvalidRequestError("raw_input_contents: an element is longer than its tensor")
        yield raw[start:end]
        at = end


def _texts(name: str, elements: Sequence[bytes], rows: int) -> list[str]:
    if len(elements) != rows:
        raise InvalidRequestError(f"{name}: the shape says {rows} rows, the content does not")
    try:
        return [element.decode("utf-8") for element in elements]
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{name}: a text is not UTF-8") from None


def _truncate(parameters: Mapping[str, Any], default: Truncate) -> Truncate:
    if "truncate" not in parameters:
        return default
    asked = parameters["truncate"].string_param
    known = _TRUNCATE.get(asked.upper())
    if known is None:
        raise InvalidRequestError(f"truncate: {asked[:_SHOWN]!r} is neither NONE nor END")
    return known
