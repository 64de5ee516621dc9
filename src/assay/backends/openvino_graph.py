"""What OpenVINO is told of a graph before it compiles it: where attention is, and that a decoder's cache is a state.

The reader of ONNX puts conditions around attention, and some models spell it out, which transposes and scales all keys
at every step. Said in one operation, with a state behind it whose rows can be reordered, OpenVINO appends to the cache
in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS = "beam_idx"
"""The input that says which row of the cache each row goes on from: OpenVINO's own name for it."""
LENGTH = "cached_tokens"
"""The input that says how many tokens the cache holds."""
_END = np.iinfo(np.int64).max
_SWAPPED = {3: [0, 2, 1], 4: [0, 1, 3, 2]}
"""The order of axes in which the last two are swapped."""


@dataclass(frozen=True)
class _Attention:
    """The parts of one attention: outputs of nodes, the mask None where there is none, and the node of its result."""

    queries: Any
    keys: Any
    values: Any
    mask: Any
    scale: float
    result: Any


def fuse_attention(model: Any) -> int:
    """Put one operation in place of every attention, as it was read or spelled out; how many there were.

    Whatever is not recognised to the last operation stays as it is.
    """
    from openvino import opset13 as ops

    found = [each for node in model.get_ordered_ops() if (each := _attention(node) or _read(node))]
    for each in found:
        mask = each.mask or ops.constant(np.float32(0))
        one = ops.scaled_dot_product_attention(
            each.queries, _shared(each.keys), _shared(each.values), mask, ops.constant(np.float32(each.scale))
        )
        one.set_friendly_name(each.result.get_friendly_name())
        for port in list(each.result.output(0).get_target_inputs()):
            port.replace_source_output(one.output(0))
    model.validate_nodes_and_infer_types()
    return len(found)


def turn_weights(model: Any) -> int:
    """Have products read weights as the checkpoint has them, where a transposition lies between; how many now do."""
    from openvino import opset13 as ops

    found = [node for node in model.get_ordered_ops() if _product(node) and _turned(node.input_value(1).get_node())]
    for node in found:
        left, right = node.input_values()
        one = ops.matmul(left, right.get_node().input_value(0), transpose_a=False, transpose_b=True)
        one.set_friendly_name(node.get_friendly_name())
        for port in list(node.output(0).get_target_inputs()):
            port.replace_source_output(one.output(0))
    model.validate_nodes_and_infer_types()
    return len(found)


def tell_length(model: Any, tokens: str) -> None:
    """Have a decoder told how long its `past` inputs are, which it asks them else.

    At f16 a cache whose length is asked is none that OpenVINO appends to in place: every step would copy it.

    Args:
        model: the decoder; it gets the input `LENGTH`.
        tokens: the input whose first axis is the batch.
    """
    from openvino import opset13 as ops

    batch = _batch(model, tokens)
    length = ops.parameter([1], np.int64)
    length.output(0).get_tensor().set_names({LENGTH})
    model.add_parameters([length])
    for past in _past(model).values():
        asking = [each.get_node() for each in past.get_target_inputs() if _is(each.get_node(), "ShapeOf")]
        for reader in [reader for each in asking for reader in each.output(0).get_target_inputs()]:
            reader.replace_source_output(_shape(past, batch, length).output(0))
    model.validate_nodes_and_infer_types()


def keep_cache(model: Any, tokens: str) -> None:
    """Turn a decoder's `past` inputs and `present` outputs into states, empty at first.

    Args:
        model: the decoder; it gets the input `ROWS`.
        tokens: the input whose first axis is the batch.
    """
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_make_stateful_transformation

    rows = ops.parameter([-1], np.int32)
    rows.output(0).get_tensor().set_names({ROWS})
    model.add_parameters([rows])
    past = _past(model)
    for port in past.values():
        # Those that ask for its length alone, untold, stay: behind an order of rows that others read OpenVINO sees no
        # cache.
        readers = [reader for reader in port.get_target_inputs() if not _is(reader.get_node(), "ShapeOf")]
        reordered = ops.gather(port, rows, ops.constant(np.int64(0)))
        for reader in readers:
            reader.replace_source_output(reordered.output(0))
    apply_make_stateful_transformation(model, {name: name.replace("past", "present") for name in past})
    batch = _batch(model, tokens)
    for state in (node for node in model.get_ops() if _is(node, "ReadValue")):
        empty = _shape(state.output(0), batch, _numbers(0))
        state.set_arguments([ops.broadcast(ops.constant(np.float32(0)), empty)])
    model.validate_nodes_and_infer_types()


def _past(model: Any) -> dict[str, Any]:
    """The inputs with keys and values of the tokens before, by name."""
    return {name: port for port in model.inputs for name in port.get_names() if name.startswith("past_")}


def _batch(model: Any, tokens: str) -> Any:
    from openvino import opset13 as ops

    return ops.gather(ops.shape_of(model.input(tokens), output_type="i64"), _numbers(0), ops.constant(np.int64(0)))


def _shape(keys: Any, batch: Any, length: Any) -> Any:
    """The shape of keys or values of so many tokens."""
    from openvino import opset13 as ops

    return ops.concat([batch, _numbers(_length(keys, 1)), length, _numbers(_length(keys, 3))], axis=0)


def _read(node: Any) -> _Attention | None:
    """Attention that was one operation before, without what the reader of ONNX puts around it.

    It fits masks to the length of the keys, though the exporter's are as long, and has zeros in place of what attends
    to nothing, which a softmax that is spelled out has not either.
    """
    if not _is(node, "ScaledDotProductAttention") or node.get_attributes()["causal"] or node.get_input_size() != 5:
        return None
    queries, keys, values, mask, factor = node.input_values()
    scale, padded, result = _number(factor.get_node()), _is(mask.get_node(), "Pad"), _guarded(node)
    bare = not padded and result == node and _is(factor.get_node(), "Constant")
    if scale is None or bare:
        return None
    return _Attention(queries, keys, values, mask.get_node().input_value(0) if padded else mask, scale, result)


def _guarded(node: Any) -> Any:
    """The choice between a node and zero, by whether it is a number, where that is all that is made of it."""
    readers = [port.get_node() for port in node.output(0).get_target_inputs()]
    choices = [each for each in readers if _is(each, "Select") and _is(each.input_value(0).get_node(), "IsNaN")]
    others = {each.get_type_name() for each in readers if each not in choices} - {"IsNaN", "ConvertLike"}
    if len(choices) != 1 or others or _number(choices[0].input_value(1).get_node()) != 0:
        return node
    return choices[0]


def _attention(softmax: Any) -> _Attention | None:
    """The attention around a softmax: `softmax(scale * queries @ keys.T + mask) @ values`."""
    if not _is(softmax, "Softmax"):
        return None
    readers = [port.get_node() for port in softmax.output(0).get_target_inputs()]
    if len(readers) != 1 or not _product(readers[0]) or readers[0].input_value(0).get_node() != softmax:
        return None
    scores, mask = softmax.input_value(0), None
    if _is(scores.get_node(), "Add"):
        summands = scores.get_node().input_values()
        scores, mask = summands if _product(summands[0].get_node()) else summands[::-1]
    if not _product(scores.get_node()):
        return None
    (queries, once), (turned, again) = (_unscaled(factor) for factor in scores.get_node().input_values())
    keys = _untransposed(turned)
    if keys is None or len(keys.get_partial_shape()) != len(_SWAPPED[4]):
        return None
    return _Attention(queries, keys, readers[0].input_value(1), mask, once * again, readers[0])


def _product(node: Any) -> bool:
    """Whether it is a plain matrix product."""
    return _is(node, "MatMul") and not (node.get_attributes()["transpose_a"] or node.get_attributes()["transpose_b"])


def _unscaled(output: Any) -> tuple[Any, float]:
    """What is multiplied by a number, and the number; 1 where none is."""
    node = output.get_node()
    if _is(node, "Multiply"):
        for each, other in (node.input_values(), node.input_values()[::-1]):
            if (factor := _number(other.get_node())) is not None:
                return each, factor
    return output, 1.0


def _number(node: Any) -> float | None:
    """A number that is computed of constants alone, as the exporter does."""
    if _is(node, "Constant"):
        return float(node.data.item()) if node.data.size == 1 else None
    if node.get_type_name() in ("Convert", "ConvertLike"):
        return _number(node.input_value(0).get_node())
    if _is(node, "Sqrt"):
        inner = _number(node.input_value(0).get_node())
        return None if inner is None else float(np.sqrt(np.float32(inner)))
    return None


def _untransposed(output: Any) -> Any | None:
    """Of what the last two axes are swapped here, by a transposition alone or one in three axes between reshapes."""
    node = output.get_node()
    if not _is(node, "Reshape"):
        return _swapped(node, 4)
    inner = _swapped(node.input_value(0).get_node(), 3)
    if inner is None or not _is(inner.get_node(), "Reshape"):
        return None
    return inner.get_node().input_value(0)


def _turned(node: Any) -> bool:
    """Whether it is a constant matrix, transposed."""
    return (
        _is(node, "Transpose")
        and _is(node.input_value(0).get_node(), "Constant")
        and _constant(node.input_value(1)) == [1, 0]
    )


def _swapped(node: Any, rank: int) -> Any | None:
    if _is(node, "Transpose") and _constant(node.input_value(1)) == _SWAPPED[rank]:
        return node.input_value(0)
    return None


def _shared(output: Any) -> Any:
    """Keys or values that several heads of queries share, repeated in those operations by which OpenVINO knows them.

    They are the exporter's, but for slices that take everything, and for a product with ones in place of a broadcast.
    """
    from openvino import opset13 as ops

    heads = output.get_node()
    wide = _through(heads.input_value(0), "Identity") if _is(heads, "Reshape") else output
    single = _whole(wide.get_node().input_value(0)).get_node() if _is(wide.get_node(), "Broadcast") else heads
    times = wide.get_partial_shape()[2]
    if not _is(single, "Unsqueeze") or _constant(single.input_value(1)) != [2] or times.is_dynamic:
        return output
    few = ops.unsqueeze(_whole(single.input_value(0)), _numbers(2))
    repeated = ops.multiply(few, ops.constant(np.ones((1, 1, times.get_length(), 1, 1), np.float32)))
    return ops.reshape(repeated, heads.input_value(1), heads.get_attributes()["special_zero"]).output(0)


def _whole(output: Any) -> Any:
    """What a slice that takes everything is of."""
    node = output.get_node()
    if not _is(node, "Slice"):
        return output
    start, stop, step = (_folded(node.input_value(index)) for index in (1, 2, 3))
    return _whole(node.input_value(0)) if (start, stop, step) == ([0], [_END], [1]) else output


def _folded(output: Any) -> list[int] | None:
    """The value of a constant behind conversions and reshapes."""
    while output.get_node().get_type_name() in ("Convert", "Reshape"):
        output = output.get_node().input_value(0)
    value = _constant(output)
    return value if value is None or isinstance(value, list) else [value]


def _through(output: Any, kind: str) -> Any:
    while _is(output.get_node(), kind):
        output = output.get_node().input_value(0)
    return output


def _constant(output: Any) -> Any:
    node = output.get_node()
    return node.data.tolist() if _is(node, "Constant") else None


def _is(node: Any, kind: str) -> bool:
    return bool(node.get_type_name() == kind)


def _length(output: Any, axis: int) -> int:
    return int(output.get_partial_shape()[axis].get_length())


def _numbers(*values: int) -> Any:
    from openvino import opset13 as ops

    return ops.constant(np.array(values, np.int64))
