"""Half precision for the parts that bear it, by the types in the ONNX graph: strongly typed engines build those."""

from __future__ import annotations

import hashlib
import re

#: Modules that compute in half precision: convolutions and linear layers whose inputs and outputs are features.
#: Everything else is an island of single precision: projection and sampling, gate, softmax, normalisations, scales,
#: quaternions, the heads, inputs and outputs. Half a pixel's worth of a coordinate would already be lost.
HALF_PARTS = re.compile(
    r"expert\.encoder\.(backbone|laterals|smooth|context)\b|expert\.blocks\.\d+\.(feed_forward\.[13]|mixing\.out|lifting\.out)\b"
)
#: Operators of those modules that do; their further inputs, as sizes and bounds, keep their types.
_OPERATORS = {"Conv": 3, "Gemm": 3, "MatMul": 2, "Add": 2, "Mul": 2, "Relu": 1, "Clip": 3, "Pad": 1}


def parts_digest() -> str:
    """Changes with what computes in half precision."""
    return hashlib.sha256(f"{HALF_PARTS.pattern} {sorted(_OPERATORS.items())}".encode()).hexdigest()[:16]


def is_half(module: str) -> bool:
    """Whether a module of that path, as `expert.blocks.0.feed_forward.1`, computes in half precision."""
    return HALF_PARTS.match(module) is not None


def half_precision(content: bytes) -> bytes:
    """An ONNX file with the nodes of HALF_PARTS in half precision, told by their names (module path, then operator).

    Inputs and outputs stay float32. A file in which no node bears such a name comes back as it is. Raises ValueError
    where onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise ValueError("precision fp16 needs onnx: pip install onnx, or use precision fp32") from error
    import numpy as np

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    graph = model.graph
    chosen = {node.name for node in graph.node if node.op_type in _OPERATORS and is_half(node.name)}
    if not chosen:
        return content
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    types |= {name: tensor.data_type for name, tensor in constants.items()}
    made = {name for node in graph.node if node.name in chosen for name in node.output}
    wanted = {value.name for value in graph.output} | {
        name for node in graph.node if node.name not in chosen for name in node.input
    }
    nodes, halves = [], set()
    for node in graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input[: _OPERATORS[node.op_type]]):
            if types.get(name) != TensorProto.FLOAT:
                continue
            half = f"{name}/half"
            if half not in halves and name not in made:
                if name in constants:
                    array = numpy_helper.to_array(constants[name]).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(array, half))
                else:
                    nodes.append(helper.make_node("Cast", [name], [half], name=half, to=TensorProto.FLOAT16))
                halves.add(half)
            node.input[place] = half
        (output,) = node.output
        node.output[0] = f"{output}/half"
        nodes.append(node)
        if output in wanted:
            nodes.append(helper.make_node("Cast", [node.output[0]], [output], name=output, to=TensorProto.FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
