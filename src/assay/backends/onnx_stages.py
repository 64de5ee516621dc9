"""An ONNX export once more, step by step, for the diagnosis of a cell: where on the way does a difference enter?

The exporter runs again, which leaves the program that it translated and its record of which module every value
comes from; the artifact's own graphs, told to answer those values too, are what runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch

from assay.backends import onnx_export
from assay.backends.base import Artifact, Engine, Operation, Stages, Tensors
from assay.backends.onnx_decoding import DecodingEngine
from assay.families.base import Family, accepted
from assay.families.generation import GeneratingFamily
from assay.families.graphs import Graph, graphs

_ROWS = 2
"""Axes that a value needs to be compared row by row."""


class Differs(Exception):
    """The artifact's graph is not what the exporter makes of this checkpoint."""


@dataclass(frozen=True)
class Remade:
    """One graph, exported again.

    Attributes:
        name: its file's, without the suffix.
        program: what was translated into ONNX, an `ExportedProgram`.
        model: the translation, an `onnx_ir.Model`.
        places: for each call of a module, by its name, the nodes of the program that leave it.
    """

    name: str
    graph: Graph
    program: Any
    model: Any
    places: Sequence[tuple[str, Sequence[str]]]

    @cached_property
    def nodes(self) -> frozenset[str]:
        """All nodes that leave modules."""
        return frozenset(node for _, nodes in self.places for node in nodes)

    def watched(self, node: str) -> str:
        """What the value of a node is called among the outputs."""
        return f"watched__{self.name}__{node}"


class OnnxStages(Stages):
    """The exported program and the ONNX graph behind an artifact.

    Raises:
        NotExported: the exporter cannot do it again.
    """

    def __init__(self, family: Family, checkpoint: Path, artifact: Artifact) -> None:
        self._family = family
        self._artifact = artifact
        described = family.describe(checkpoint)
        sample = accepted(described, family.inputs(described, family.sample, np.random.default_rng(0)))
        self._graphs = [_remade(name, graph) for name, graph in graphs(family, checkpoint, sample).items()]

    def engines(self, watched: Artifact) -> Sequence[tuple[str, Callable[[], Engine]]]:
        """The program in torch, and the graph in ONNX Runtime with its optimisations off."""
        return (("exported program", self._program), ("ONNX", lambda: _unoptimized(watched)))

    def _program(self) -> Engine:
        for graph in self._graphs:
            saved = onnx_ir.load(str(Path(self._artifact.path) / f"{graph.name}.onnx"))
            if _structure(saved) != _structure(graph.model):
                raise Differs("the artifact's graph is not what the exporter makes of this checkpoint")
        programs = {graph.name: _Program(graph) for graph in self._graphs}
        if isinstance(self._family, GeneratingFamily):
            return _ProgramDecoder(self._family, programs["model"], programs.get("encoder"))
        return _ProgramEngine(programs["model"])

    def watched(self, folder: Path) -> Artifact:
        """The artifact's graphs, tensors included, with the values that leave modules among their outputs."""
        source = Path(self._artifact.path)
        for file in source.iterdir():
            if file.suffix == ".data":
                shutil.copyfile(file, folder / file.name)  # readers refuse links, and whoever reads the cache now too
        for graph in self._graphs:
            model = onnx.load(str(source / f"{graph.name}.onnx"), load_external_data=False)
            for node, value in _values(graph, {name for each in model.graph.node for name in each.output}):
                model.graph.node.append(onnx.helper.make_node("Identity", [value], [graph.watched(node)]))
                output = onnx.helper.make_tensor_value_info(graph.watched(node), onnx.TensorProto.FLOAT, None)
                model.graph.output.append(output)
            onnx.save(model, str(folder / f"{graph.name}.onnx"))
        return replace(self._artifact, path=str(folder))

    def layers(
        self, outputs: Tensors, exact: Mapping[tuple[str, int], np.ndarray]
    ) -> dict[tuple[str, int], np.ndarray]:
        """The modules' outputs among those of a watched engine, where it is clear which value is which.

        A module's calls must be as many as the reference's, and of the values that leave a call just one of its shape.
        """
        calls: dict[str, list[list[np.ndarray]]] = {}
        for graph in self._graphs:
            for module, nodes in graph.places:
                names = [graph.watched(node) for node in nodes]
                calls.setdefault(module, []).append([outputs[name] for name in names if name in outputs])
        found = {}
        for module, candidates in calls.items():
            wanted = [exact[key] for key in exact if key[0] == module]
            shapes = {array.shape for array in wanted}
            fitting = [[each for each in values if each.shape in shapes] for values in candidates]
            fitting = [values for values in fitting if values]
            if len(fitting) != len(wanted) or any(len(values) > 1 for values in fitting):
                continue
            for number, ((value,), array) in enumerate(zip(fitting, wanted, strict=True), 1):
                if value.shape == array.shape:
                    found[module, number] = value
        return found


def _remade(name: str, graph: Graph) -> Remade:
    with _translated() as programs:
        model = onnx_export.exported(graph)
    return Remade(name, graph, programs[-1], model, _places(programs[-1], graph.module))


@contextmanager
def _translated() -> Iterator[list[Any]]:
    """The programs that are translated meanwhile: transformers' exporter hands on the translation alone."""
    programs: list[Any] = []
    original = torch.onnx.export

    def export(*arguments: Any, **options: Any) -> Any:
        translation = original(*arguments, **options)
        programs.append(translation.exported_program)
        return translation

    torch.onnx.export = export
    try:
        yield programs
    finally:
        torch.onnx.export = original


def _places(program: Any, module: torch.nn.Module) -> list[tuple[str, list[str]]]:
    """For each call of a module, in order: its name (of several the first), and the nodes that leave it."""
    first: dict[int, str] = {}
    own = {alias: first.setdefault(id(each), alias) for alias, each in module.named_modules(remove_duplicate=False)}
    inside: dict[str, list[Any]] = {}
    paths: dict[str, str] = {}
    for node in program.graph.nodes:
        for call, (path, _) in _stack(node).items():
            inside.setdefault(call, []).append(node)
            paths[call] = path
    return [
        (own[paths[call]], [node.name for node in nodes if _leaves(node, call)])
        for call, nodes in inside.items()
        if own.get(paths[call])
    ]


def _stack(node: Any) -> Mapping[str, tuple[str, Any]]:
    return (node.meta.get("nn_module_stack") or {}) if node.op == "call_function" else {}


def _leaves(node: Any, call: str) -> bool:
    """Whether it is a tensor of floats with rows that something outside of this call uses."""
    value = node.meta.get("val")
    rows = isinstance(value, torch.Tensor) and value.dtype is torch.float32 and value.ndim >= _ROWS
    return rows and any(call not in _stack(user) for user in node.users)


def _values(graph: Remade, held: set[str]) -> Iterator[tuple[str, str]]:
    """The nodes that leave modules, and what the ONNX graph calls their values: the same, but for its outputs."""
    outputs = [each.arg.name for each in graph.program.graph_signature.output_specs]
    renamed = dict(zip(outputs, (value.name for value in graph.model.graph.outputs), strict=True))
    for node in sorted(graph.nodes):
        value = renamed.get(node, node)
        if value in held:
            yield node, value


def _structure(model: Any) -> list[Any]:
    """Nodes, what connects them, and their plain attributes; tensors are compared by what they compute."""
    plain: dict[Any, Callable[[Any], Any]] = {
        onnx_ir.AttributeType.INT: int, onnx_ir.AttributeType.FLOAT: np.float32, onnx_ir.AttributeType.STRING: str,
    }  # fmt: skip
    return [
        (
            node.op_type,
            [value and value.name for value in node.inputs],
            [value.name for value in node.outputs],
            sorted(
                (name, plain[each.type](each.value)) for name, each in node.attributes.items() if each.type in plain
            ),
        )
        for node in model.graph
    ]


def _unoptimized(artifact: Artifact) -> Engine:
    from assay.backends import onnxruntime

    return onnxruntime.opened(artifact, optimized=False)


class _Program:
    """An exported program in torch; its outputs, and the values that leave modules."""

    def __init__(self, remade: Remade) -> None:
        # Guards refuse what was not so in the sample, such as an empty cache; the graph goes without them too.
        self._module = remade.program.module(check_guards=False)
        self._inputs = list(remade.graph.sample)
        self.sample = remade.graph.sample
        self._remade = remade

    def run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        remade, seen = self._remade, {}

        class Watching(torch.fx.Interpreter):
            def run_node(self, node: Any) -> Any:
                result = super().run_node(node)
                if node.name in remade.nodes:
                    seen[remade.watched(node.name)] = np.array(result.numpy())
                return result

        with torch.no_grad():
            tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self._inputs]
            outputs = Watching(self._module).run(*tensors)
        return {name: tensor.numpy() for name, tensor in outputs.items()} | seen


class _ProgramEngine(Engine):
    """A model of one program."""

    def __init__(self, program: _Program) -> None:
        self._program = program

    def run(self, inputs: Tensors) -> Tensors:
        return self._program.run(inputs)

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        return self.run(inputs), []


class _ProgramDecoder(DecodingEngine):
    """A decoder's program and, where it has one, its encoder's."""

    def __init__(self, family: GeneratingFamily, decoder: _Program, encoder: _Program | None) -> None:
        super().__init__(family)
        self._decoder = decoder
        self._encoder = encoder
        self._bound: dict[str, np.ndarray] = {}

    def begin(self, batch: int, source: Tensors) -> Tensors:
        for name, tensor in self._decoder.sample.items():
            if name.startswith("past_"):
                self._bound[name] = np.zeros((batch, tensor.shape[1], 0, tensor.shape[3]), np.float32)
        if not self._encoder:
            return {}
        answers = self._encoder.run(source)
        self._bound |= {name: array for name, array in answers.items() if name in self._decoder.sample}
        return {name: array for name, array in answers.items() if name not in self._decoder.sample}

    def decode(self, feed: Tensors) -> Tensors:
        outputs = self._decoder.run({**feed, **self._bound})
        self._bound |= {
            name.replace("present", "past"): outputs.pop(name) for name in list(outputs) if name.startswith("present_")
        }
        return outputs

    def reset(self) -> None:
        self._bound = {}
        self._mask = None

    def cache_size(self) -> int:
        return sum(array.nbytes for name, array in self._bound.items() if name.startswith("past_"))

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        return self.run(inputs), []
