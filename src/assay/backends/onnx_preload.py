"""Imports whatever an export imports: for the server, which forks a process for every one.

torch and transformers leave most of it to the first export, and transformers' exporter then looks up every class that
it may patch, in forty modules of models: 2.9 of the 7.5 processor seconds of a small export in a fresh process.
"""

from __future__ import annotations

from importlib import import_module

from transformers.exporters import exporter_onnx, utils

for _name in (
    exporter_onnx.__name__,
    "onnxscript",
    "sympy.tensor.tensor",
    "torch._inductor.sizevars",
    "torch.export._trace",
    "torch.onnx._internal.exporter._core",
):
    import_module(_name)

for _patches in utils._PATCHES.values():
    for _owner, *_ in _patches:
        utils.import_dotted_path(_owner, missing_ok=True)
