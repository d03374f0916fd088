"""The graph for OpenVINO in BF16, with FP32 wherever BF16 would only cost accuracy.

Asked for BF16, OpenVINO rounds everything: sums of residuals and norms lose as many bits as the
products, though the time is all in these. What is marked as precise it keeps in FP32. ONNX has no
place for such marks, so the graph is written in OpenVINO's own form.
"""

from pathlib import Path
from xml.etree import ElementTree

import openvino

#: Name and version of OpenVINO's attribute `DisablePrecisionConversion` in its files.
_PRECISE = {"name": "precise", "version": "0"}
#: Rounded to BF16; attention, with the softmax between its products, is one operation by then.
_ROUNDED = {"MatMul"}
_NOT_COMPUTED = {"Const", "Parameter", "Result"}


def write_mixed(graph: Path, out: Path) -> None:
    """`graph` as `out`, a .xml file with the weights in a .bin file beside it."""
    openvino.save_model(openvino.Core().read_model(graph), out, compress_to_fp16=False)
    tree = ElementTree.parse(out)  # noqa: S314 - as above
    for layer in tree.iterfind("layers/layer"):
        if layer.get("type") not in _ROUNDED | _NOT_COMPUTED:
            _mark(layer)
    tree.write(out, encoding="utf-8", xml_declaration=True)


def _mark(layer: ElementTree.Element) -> None:
    notes = layer.find("rt_info")
    if notes is None:
        notes = ElementTree.Element("rt_info")
        # Read by position: after the layer's own data, before its ports.
        layer.insert(int(layer.find("data") is not None), notes)
    ElementTree.SubElement(notes, "attribute", _PRECISE)
