"""The graph for OpenVINO in BF16, with FP32 wherever BF16 would only cost accuracy.

Asked for BF16, OpenVINO rounds everything: sums of residuals and norms lose as many bits as the
products, though the time is all in these. What is marked as precise it keeps in FP32, all but
products. ONNX has no place for such marks, so the graph is written in OpenVINO's own form, and the
product of the head as a sum.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openvino
from openvino import opset13 as ops

#: Name and version of OpenVINO's attribute `DisablePrecisionConversion` in its files.
_PRECISE = {"name": "precise", "version": "0"}
#: Rounded to BF16; attention, with the softmax between its products, is one operation by then.
_ROUNDED = {"MatMul"}
_NOT_COMPUTED = {"Const", "Parameter", "Result"}
#: A product of this many results for a row at most is the head's.
_LABELS = 8


def write_mixed(graph: Path, out: Path) -> None:
    """`graph` as `out`, a .xml file with the weights in a .bin file beside it."""
    model = openvino.Core().read_model(graph)
    for product in [node for node in model.get_ops() if _is_heads(node)]:
        _write_as_sum(product)
    openvino.save_model(model, out, compress_to_fp16=False)
    tree = ElementTree.parse(out)  # noqa: S314 - of what was just written
    for layer in tree.iterfind("layers/layer"):
        if layer.get("type") not in _ROUNDED | _NOT_COMPUTED:
            _mark(layer)
    tree.write(out, encoding="utf-8", xml_declaration=True)


def _is_heads(node: openvino.Node) -> bool:
    if node.get_type_name() != "MatMul":
        return False
    _rows, weights = node.input_values()
    labels = node.get_output_partial_shape(0)[-1]
    constant = weights.get_node().get_type_name() == "Constant"
    return bool(constant and labels.is_static and labels.get_length() <= _LABELS)


def _write_as_sum(product: openvino.Node) -> None:
    """Rows [..., hidden] times weights [labels, hidden], summed: the same as the product."""
    rows, weights = product.input_values()
    if not product.get_attributes()["transpose_b"]:
        weights = ops.transpose(weights, np.array([1, 0])).output(0)
    terms = ops.multiply(ops.unsqueeze(rows, np.array([-2])), weights)
    total = ops.reduce_sum(terms, np.array([-1]))
    # It may be the graph's own output.
    total.output(0).set_names(product.output(0).get_names())
    for reader in product.output(0).get_target_inputs():
        reader.replace_source_output(total.output(0))


def _mark(layer: ElementTree.Element) -> None:
    notes = layer.find("rt_info")
    if notes is None:
        notes = ElementTree.Element("rt_info")
        # Read by position: after the layer's own data, before its ports.
        layer.insert(int(layer.find("data") is not None), notes)
    ElementTree.SubElement(notes, "attribute", _PRECISE)
