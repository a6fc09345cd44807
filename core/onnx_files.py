"""ONNX models: written from torch networks and checked against them, opened with onnxruntime on the CPU.

The packages `onnx` and `onnxruntime` are optional: pip install 'facefoundry[onnx]'.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import UserError, missing_extra
from .files import write_atomic

TOLERANCE = 1e-4
"""Largest difference between a written model and its network, in units of the largest output (at least 1)."""


def write_onnx(network: nn.Module, example: Tensor, path: Path, *, names: Sequence[str] = ("input", "embedding"), purpose: str = "the export") -> np.ndarray:
    """Write a network of one input and one output, both with a free first axis "batch_size", run what was written, and return the example's output.

    Args:
        example: an input of at least two rows, (B, ...) float32 on the CPU.
        names: of the input and the output.
        purpose: what needs it, for the message where a package is missing.

    Raises:
        UserError: onnx or onnxruntime is not installed, or the written model disagrees with the network.
    """
    try:
        import onnx  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise missing_extra("onnx", "onnx", purpose) from error
    network = network.cpu().eval()
    with torch.no_grad():
        expected = network(example).numpy()
    write_atomic(path, lambda temporary: _export(network, example, names, temporary))
    session = open_onnx(path, purpose=purpose)
    given = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
    gap = float(np.abs(given - expected).max())
    if gap > TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise UserError(f"{path} gives other embeddings than the network it was made from (largest difference {gap:.3g}); use another version of torch or onnxruntime")
    return expected


def open_onnx(path: Path | str, *, purpose: str = "running an ONNX model") -> Any:
    """Return an onnxruntime session on the CPU with as many threads as torch has.

    Raises:
        UserError: onnxruntime is not installed, no such file, or no ONNX model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx", purpose) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception types vary with its version; all mean the same to the user
        raise UserError(f"{path} cannot be opened as an ONNX model ({str(error).splitlines()[0][:200]})") from error


def _export(network: nn.Module, example: Tensor, names: Sequence[str], path: Path) -> None:
    inside, out = names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch marks this exporter as legacy; its successor needs onnxscript and twenty times the time
        torch.onnx.export(
            network, (example,), str(path), dynamo=False, opset_version=17, input_names=[inside], output_names=[out],
            dynamic_axes={inside: {0: "batch_size"}, out: {0: "batch_size"}},
        )  # fmt: skip
