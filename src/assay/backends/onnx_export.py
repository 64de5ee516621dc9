"""torch to ONNX, once for every column that runs ONNX: cached by content, weights provable, written atomically.

The export is transformers' own (`transformers.exporters.OnnxExporter`) with `optimize=False`, which
keeps every parameter as an initialiser, bit for bit, under its name: that is what the weights layer
compares with the safetensors.
"""

from __future__ import annotations

import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.backends.base import Artifact
from assay.files import published_folder
from assay.schema import Precision

if TYPE_CHECKING:
    from assay.checkpoints import Checkpoint
    from assay.families.base import Family

MODEL_FILE = "model.onnx"
MANIFEST = "export.json"
OPSET = 20
"""At 20 attention stays decomposed, so that no runtime puts a quantised cache behind it by itself."""
EXPORTER = ("transformers.exporters.exporter_onnx",)
"""What a builder's server imports ahead for an export."""
_PACKAGES = ("torch", "transformers", "onnx", "onnxscript")


def export(checkpoint: Checkpoint, *, precision: Precision) -> Artifact:
    """The checkpoint as an ONNX folder with dynamic batch and length; from the cache if it was made before.

    The key is the content: checkpoint digest, versions of the exporting packages, options, and the
    source of the family and of this module, so that an edited family never meets a stale export.
    """
    from assay import families
    from assay.checkpoints import cache_dir

    family = families.load(checkpoint.family)
    recipe = _recipe(family, checkpoint, precision)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    folder = cache_dir() / "exports" / f"{family.id}-{key[:24]}"
    if not (folder / MANIFEST).is_file():
        with published_folder(folder) as draft:
            started = time.perf_counter()
            _export(family, checkpoint, draft / MODEL_FILE)
            manifest = recipe | {"seconds": time.perf_counter() - started}
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    seconds = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["seconds"]
    return Artifact(family=family.id, path=str(folder), format="onnx", export_seconds=seconds)


def _recipe(family: Family, checkpoint: Checkpoint, precision: Precision) -> dict[str, Any]:
    import inspect

    source = Path(inspect.getfile(type(family))).read_bytes() + Path(__file__).read_bytes()
    return {
        "checkpoint": checkpoint.sha256,
        "family": family.id,
        "precision": str(precision),
        "opset": OPSET,
        "packages": {name: version(name) for name in _PACKAGES},
        "source": hashlib.sha256(source).hexdigest(),
    }


def _export(family: Family, checkpoint: Checkpoint, target: Path) -> None:
    import numpy as np
    import onnx_ir
    import torch
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    module = family.load(checkpoint.path)
    sample = family.inputs(checkpoint.config(), family.sample, np.random.default_rng(0))
    tensors = {name: torch.from_numpy(sample[name]) for name in family.dynamic}
    # AUTO and not DYNAMIC: an axis that the model's own arithmetic fixes is exported as fixed, not refused.
    shapes = {name: dict.fromkeys(axes, torch.export.Dim.AUTO) for name, axes in family.dynamic.items()}
    config = OnnxConfig(dynamic=True, dynamic_shapes=shapes, optimize=False, opset_version=OPSET)
    program = OnnxExporter().export(module, tensors, config).program
    _strip(program)
    onnx_ir.save(program, str(target), external_data=f"{MODEL_FILE}.data")


def _strip(program: Any) -> None:
    """Drop the stack traces that the exporter leaves on every node: nine tenths of the file, and full of paths."""
    for node in program.graph.all_nodes():
        node.metadata_props.clear()
    for value in program.graph.initializers.values():
        value.metadata_props.clear()
    program.metadata_props.clear()
    program.graph.metadata_props.clear()
