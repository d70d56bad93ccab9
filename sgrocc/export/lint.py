"""What is in an ONNX graph that a robot's engine cannot build, or would compute wrongly: TensorRT 10.3 to 11."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from sgrocc.inference.manifest import OPSET

#: What every TensorRT from 10.3 (JetPack 6) on builds, without plugins.
ALLOWED_OPERATORS = frozenset(
    "Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv ConvTranspose Div Equal Erf Exp "
    "Expand Flatten Floor Gather GatherElements Gemm GlobalAveragePool Greater GridSample HardSigmoid HardSwish "
    "Identity LayerNormalization LeakyRelu Less Log MatMul Max MaxPool Min Mul Neg Not Or Pad Pow Reciprocal "
    "ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Softplus "
    "Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Unsqueeze Where".split()
)
#: Why the likeliest of the others stay out.
_REASONS = {
    "ScatterND": "TensorRT before 10.8 refuses it, and with a reduction all do: gather instead",
    "ScatterElements": "with a reduction TensorRT refuses it or drops the reduction: gather instead",
    "NonZero": "its size depends on the data: use a mask",
    "Unique": "no TensorRT has it",
    "Compress": "its size depends on the data: use a mask",
    "GatherND": "take rows by a flat index (Gather) instead",
    "Det": "no TensorRT has it: use the closed form",
    "Inverse": "no TensorRT has it: invert on the host",
    "Loop": "unroll it",
    "If": "export one branch",
    "Scan": "unroll it",
}
#: TensorRT's own bound on K.
_MOST_TOPK = 3840


def problems_of(model: onnx.ModelProto) -> list[str]:
    """One phrase for each thing that must not be in the graph; [] for a graph that may go to a robot."""
    problems = set()
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != OPSET:
        problems.add(f"its opset is {versions.get('')} instead of {OPSET}")
    try:
        # Without data propagation: what cannot be known from the graph alone must not be needed to build it.
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # of C++, of several kinds
        problems.add(f"its shapes cannot be inferred ({(str(error).splitlines() or [''])[0][:100]})")
        inferred = model
    types = {
        value.name: value.type.tensor_type
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if name not in ALLOWED_OPERATORS:
            problems.add(f"it has the operator {name}" + (f" ({_REASONS[name]})" if name in _REASONS else ""))
        elif name == "GridSample":
            problems |= _grid_sample(node, types)
        elif name == "TopK":
            problems |= _top_k(node, constants)
    for name, kind in types.items():
        if kind.elem_type == TensorProto.DOUBLE:
            problems.add(f"{name} is of type double, which TensorRT computes as float")
    doubles = (name for name, tensor in constants.items() if tensor.data_type == TensorProto.DOUBLE)
    problems |= {f"{name} is of type double" for name in doubles}
    for value in (*model.graph.input, *model.graph.output):
        if any(not dimension.dim_value for dimension in value.type.tensor_type.shape.dim):
            problems.add(f"{value.name} has no static shape")
    return sorted(problems)


def _grid_sample(node: onnx.NodeProto, types: dict) -> set[str]:
    problems = set()
    modes = [attribute.s.decode() for attribute in node.attribute if attribute.name == "mode"]
    if modes and modes != ["bilinear"]:
        problems.add(f"GridSample has the mode {modes[0]} instead of bilinear")
    known = types.get(node.input[0])
    rank = len(known.shape.dim) if known is not None and known.HasField("shape") else None
    if rank not in (None, 4):
        problems.add(f"GridSample has {rank} dimensions, and TensorRT before 11.2 samples 4 only")
    return problems


def _top_k(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> set[str]:
    k = constants.get(node.input[1])
    if k is None:
        return {"TopK has a K that is not constant"}
    count = int(onnx.numpy_helper.to_array(k).ravel()[0])
    return {f"TopK has K {count}, and TensorRT takes less than {_MOST_TOPK}"} if count >= _MOST_TOPK else set()
