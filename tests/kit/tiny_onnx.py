"""A tiny real ONNX image classifier, written byte by byte: the exporters of torch need a package that is not installed.

It averages each channel over a picture of (1, 3, side, side) floats and multiplies by a matrix: (1, labels).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FLOAT = 1
"""TensorProto.DataType"""


def folder_of(
    folder: Path, labels: Sequence[str], matrix: Sequence[Sequence[float]], *, softmax: bool = False, **config: Any
) -> Path:
    """A classifier's folder as exporters write it; `matrix` has a row of weights per channel, pixels are -1 to 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model(matrix, softmax=softmax))
    id2label = {str(at): label for at, label in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps({"id2label": id2label, **config}))
    prepared = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return folder


def model(matrix: Sequence[Sequence[float]], *, softmax: bool = False) -> bytes:
    """The bytes of the file: GlobalAveragePool, Flatten, MatMul and, where asked, Softmax."""
    labels = len(matrix[0])
    weights = _text(8, "weights") + _int(1, 3) + _int(1, labels) + _int(2, FLOAT)
    weights += _bytes(9, b"".join(struct.pack(f"<{labels}f", *row) for row in matrix))
    last = "logits" if softmax else "out"
    graph = _bytes(1, _node("GlobalAveragePool", ["pixels"], "pooled"))
    graph += _bytes(1, _node("Flatten", ["pooled"], "flat"))
    graph += _bytes(1, _node("MatMul", ["flat", "weights"], last))
    graph += _bytes(1, _node("Softmax", [last], "out")) if softmax else b""
    graph += _text(2, "graph") + _bytes(5, weights)
    graph += _bytes(11, _tensor("pixels", [1, 3, 8, 8])) + _bytes(12, _tensor("out", [1, labels]))
    return _int(1, 8) + _bytes(7, graph) + _bytes(8, _text(1, "") + _int(2, 13))


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(3, output) + _text(4, kind)


def _tensor(name: str, shape: Sequence[int]) -> bytes:
    dimensions = b"".join(_bytes(1, _int(1, side)) for side in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _int(1, FLOAT) + _bytes(2, dimensions)))


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])
