"""Make models/random_expert: a small network with random weights that honours the contract of a learned expert.

It proves the path from an image to Gaussians and predicts nonsense. The same seed gives the same bytes.
Run, from the root of the repository: python -m tools.make_random_expert [--out FOLDER] [--seed N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M
from sgrocc.inference.manifest import OPSET, save_model, tensor_shapes
from sgrocc.labels import NUM_CLASSES

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 160, 120
STRIDE = 8
COLUMNS, ROWS = WIDTH // STRIDE, HEIGHT // STRIDE
COUNT = ROWS * COLUMNS
FEATURE_SIZE = 8
MIN_DEPTH_M, MAX_DEPTH_M = 0.5, 5.0
CHANNELS = (3, 16, 32, 32)
IR_VERSION = 10

#: What the head predicts for each cell of the lattice, and in how many channels.
HEAD = {
    "raw_depth": 1,
    "raw_offset": 2,
    "raw_scale": 3,
    "raw_rotation": 4,
    "raw_opacity": 1,
    "logits": NUM_CLASSES,
    "raw_feature": FEATURE_SIZE,
}
INPUTS, OUTPUTS = tensor_shapes(WIDTH, HEIGHT, COUNT, FEATURE_SIZE)


class Graph:
    """Collects the nodes and constants of an ONNX graph; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray | list | float, dtype: type = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: object) -> str:
        name = name or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"make_{name}", **attributes))
        return name

    def scale(self, value: str, factor: float, offset: float, name: str = "") -> str:
        """factor * value + offset"""
        return self.add("Add", self.add("Mul", value, self.constant(factor)), self.constant(offset), name=name)

    def reshape(self, value: str, shape: tuple[int, ...], name: str = "") -> str:
        return self.add("Reshape", value, self.constant(shape, np.int64), name=name)

    def slice(self, value: str, axis: int, start: int, stop: int, step: int = 1, name: str = "") -> str:
        where = (self.constant([n], np.int64) for n in (start, stop, axis, step))
        return self.add("Slice", value, *where, name=name)


def build_model(seed: int) -> onnx.ModelProto:
    """The network, with weights drawn from `seed`: opset 18, static shapes, batch 1.

    Only operators that reach every TensorRT are used: no Resize, no scatter, and Add of -1 times for Sub.
    """
    # RandomState, unlike Generator, promises the same numbers in every numpy; uniform needs no libm.
    random = np.random.RandomState(seed)
    graph = Graph()

    value = "image"
    for channels_in, channels_out in zip(CHANNELS, CHANNELS[1:]):
        weight, bias = _weights(random, channels_out, channels_in, 3)
        value = graph.add(
            "Conv",
            value,
            graph.constant(weight),
            graph.constant(bias),
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        )
        value = graph.add("Relu", value)
    weight, bias = _weights(random, sum(HEAD.values()), CHANNELS[-1], 1)
    value = graph.add("Conv", value, graph.constant(weight), graph.constant(bias), kernel_shape=[1, 1])
    value = graph.reshape(graph.add("Transpose", value, perm=[0, 2, 3, 1]), (1, COUNT, sum(HEAD.values())))

    raw, start = {}, 0
    for name, size in HEAD.items():
        # The logits are an output as they are; everything else is bounded below.
        raw[name] = graph.slice(value, 2, start, start + size, name=name if name in OUTPUTS else "")
        start += size

    anchor_depth = _depth(graph, raw["raw_depth"])
    _means(graph, raw["raw_offset"], anchor_depth)
    graph.scale(graph.add("Sigmoid", raw["raw_scale"]), MAX_SCALE_M - MIN_SCALE_M, MIN_SCALE_M, name="scales")
    rotation = graph.add("Add", raw["raw_rotation"], graph.constant([1, 0, 0, 0]))
    length = graph.add("ReduceL2", rotation, graph.constant([2], np.int64), keepdims=1)
    graph.add("Div", rotation, graph.add("Add", length, graph.constant(1e-6)), name="rotations")
    graph.reshape(graph.add("Sigmoid", raw["raw_opacity"]), OUTPUTS["opacities"], name="opacities")
    graph.add("Tanh", raw["raw_feature"], name="features")

    def tensors(shapes: dict[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    onnx_graph = helper.make_graph(
        graph.nodes, "random_expert", tensors(INPUTS), tensors(OUTPUTS), initializer=graph.constants
    )
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="sgrocc")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _weights(random: np.random.RandomState, outputs: int, inputs: int, kernel: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform weights that keep the variance of the values through a ReLU, and biases."""
    bound = np.sqrt(6.0 / (inputs * kernel * kernel))
    return random.uniform(-bound, bound, (outputs, inputs, kernel, kernel)), random.uniform(-0.5, 0.5, outputs)


def _depth(graph: Graph, raw: str) -> str:
    """The output `depth`: the sensor's where it is valid, else that of the pixel's cell. Returns (1, COUNT, 1)."""
    own = graph.scale(graph.add("Sigmoid", raw), MAX_DEPTH_M - MIN_DEPTH_M, MIN_DEPTH_M)
    cells = graph.reshape(own, (1, 1, ROWS, 1, COLUMNS, 1))
    pixels = graph.add("Expand", cells, graph.constant((1, 1, ROWS, STRIDE, COLUMNS, STRIDE), np.int64))
    pixels = graph.reshape(pixels, OUTPUTS["depth"])
    valid = graph.add("Cast", graph.add("Greater", "sensor_depth", graph.constant(0.0)), to=TensorProto.FLOAT)
    from_sensor = graph.add("Mul", "sensor_depth", valid)
    from_network = graph.add("Mul", pixels, graph.scale(valid, -1.0, 1.0))
    graph.add("Add", from_sensor, from_network, name="depth")
    anchors = graph.slice("depth", 2, STRIDE // 2, HEIGHT, STRIDE)
    anchors = graph.slice(anchors, 3, STRIDE // 2, WIDTH, STRIDE)
    return graph.reshape(anchors, (1, COUNT, 1))


def _means(graph: Graph, raw_offset: str, depth: str) -> None:
    """The output `means`: a pixel inside the cell, back-projected to `depth` with the intrinsics."""
    centres = np.stack(np.meshgrid(np.arange(COLUMNS), np.arange(ROWS)), axis=-1) * STRIDE + (STRIDE - 1) / 2
    offset = graph.scale(graph.add("Tanh", raw_offset), (STRIDE - 1) / 2, 0.0)
    pixels = graph.add("Add", offset, graph.constant(centres.reshape(1, COUNT, 2)))
    axes = graph.constant([1], np.int64)
    focal = graph.add("Unsqueeze", graph.slice("intrinsics", 1, 0, 2), axes)
    centre = graph.add("Unsqueeze", graph.slice("intrinsics", 1, 2, 4), axes)
    minus_centre = graph.add("Mul", centre, graph.constant(-1.0))
    rays = graph.add("Div", graph.add("Add", pixels, minus_centre), focal)
    graph.add("Concat", graph.add("Mul", rays, depth), depth, axis=2, name="means")


def write_model(folder: Path, seed: int) -> None:
    """Write expert.onnx and manifest.yaml into `folder`, which is made where it is missing."""
    save_model(
        folder,
        build_model(seed).SerializeToString(deterministic=True),
        "Made by tools/make_random_expert.py.",
        {
            "name": "random_expert",
            "description": (
                "Random weights. It proves the path from an image to the map and predicts nonsense: "
                "for tests only, never the default, never on a robot."
            ),
            "inputs": INPUTS,
            "outputs": OUTPUTS,
            "image": {"width": WIDTH, "height": HEIGHT, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            "resolution_m": 0.08,
            "feature_size": FEATURE_SIZE,
            "depth_sigma_m": [0.1, 0.05],
            "takes_depth": True,
            "semantic": True,
            "trained_on": f"nothing: the weights are random numbers of seed {seed}",
            "licence": "Apache-2.0",
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "random_expert", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    arguments = parser.parse_args()
    write_model(arguments.out, arguments.seed)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
