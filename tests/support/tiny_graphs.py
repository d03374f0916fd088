"""A cross-encoder's graph in miniature, made without torch: what a family's export looks like."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN, WORDS = 32, 800


def cross_encoder(*, rotary: bool = False, seed: int = 3) -> onnx.ModelProto:
    """Embedding, one attention layer with residual and norm, first-token pooling, two-layer head.

    With `rotary` there is a product of positions alone, as of rotary embeddings.
    """
    numbers = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {
        "words": numbers.normal(size=(WORDS, HIDDEN)),
        **{name: numbers.normal(size=(HIDDEN, HIDDEN)) / 6 for name in ("q", "k", "v", "o")},
        "pooler": numbers.normal(size=(HIDDEN, HIDDEN)) / 6,
        "pooler_bias": numbers.normal(size=HIDDEN),
        "classifier": numbers.normal(size=(1, HIDDEN)),
        "classifier_bias": numbers.normal(size=1),
        "gamma": np.ones(HIDDEN),
        "beta": np.zeros(HIDDEN),
        "one": np.array(1.0),
        "far": np.array(-1e4),
        "frequencies": 1 / 100 ** (np.arange(HIDDEN) / HIDDEN).reshape(1, HIDDEN),
    }
    initializers = [
        numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
        for name, value in weights.items()
    ]
    initializers += [
        numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "middle"),
        numpy_helper.from_array(np.array([-1], dtype=np.int64), "last_axis"),
        numpy_helper.from_array(np.array(1, dtype=np.int64), "step"),
    ]
    nodes = [_node("Gather", ["words", "input_ids"], "embedded")]
    hidden = "embedded"
    if rotary:
        nodes += [
            _node("Shape", ["input_ids"], "shape"),
            _node("Gather", ["shape", "step"], "length"),
            _node("Range", ["zero", "length", "step"], "positions"),
            _node("Cast", ["positions"], "angles_in", to=TensorProto.FLOAT),
            _node("Unsqueeze", ["angles_in", "last_axis"], "column"),
            _node("MatMul", ["column", "frequencies"], "angles"),
            _node("Sin", ["angles"], "sines"),
            _node("Add", ["embedded", "sines"], "placed"),
        ]
        hidden = "placed"
    nodes += [
        *[_node("MatMul", [hidden, name], f"{name}_out") for name in ("q", "k", "v")],
        _node("Transpose", ["k_out"], "k_turned", perm=[0, 2, 1]),
        _node("MatMul", ["q_out", "k_turned"], "scores"),
        _node("Cast", ["attention_mask"], "seen", to=TensorProto.FLOAT),
        _node("Sub", ["one", "seen"], "hidden_places"),
        _node("Mul", ["hidden_places", "far"], "penalties"),
        _node("Unsqueeze", ["penalties", "middle"], "penalties_by_row"),
        _node("Add", ["scores", "penalties_by_row"], "masked"),
        _node("Softmax", ["masked"], "shares", axis=-1),
        _node("MatMul", ["shares", "v_out"], "mixed"),
        _node("MatMul", ["mixed", "o"], "attended"),
        _node("Add", [hidden, "attended"], "residual"),
        _node("LayerNormalization", ["residual", "gamma", "beta"], "states"),
        _node("Gather", ["states", "zero"], "first", axis=1),
        _node("Gemm", ["first", "pooler", "pooler_bias"], "pooled"),
        _node("Tanh", ["pooled"], "squashed"),
        _node("Gemm", ["squashed", "classifier", "classifier_bias"], "logits", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "length"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def batch(rows: int = 5, length: int = 11, seed: int = 1) -> dict[str, np.ndarray]:
    """Words with padding behind them."""
    numbers = np.random.default_rng(seed)
    ids = numbers.integers(1, WORDS, size=(rows, length)).astype(np.int32)
    mask = (np.arange(length) < numbers.integers(2, length, size=(rows, 1))).astype(np.int32)
    return {"input_ids": ids * mask, "attention_mask": mask}


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"/{output}/{kind}", **attributes)
