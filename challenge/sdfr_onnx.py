"""A recogniser as the ONNX model SDFR takes: RGB in [0, 1] in, raw embedding out, normalisation inside; and its check by onnxruntime.

Server's test: one input ('batch_size', 3, 112, 112) float, one output ('batch_size', D) float, D = 512 in task 1. The `onnx` and
`onnxruntime` packages are optional: pip install 'facefoundry[onnx]'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.images import decode
from ..core.onnx_files import open_onnx, write_onnx
from .bin_file import VerificationSet

INPUT_SHAPE = ("batch_size", 3, 112, 112)
TASK_1_DIM = 512


class NormalisingNetwork(nn.Module):
    """A network for faces in [-1, 1] that takes faces in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.network(image_BCHW * 2.0 - 1.0)


def export_onnx(network: nn.Module, path: Path | str, *, task: int = 2) -> int:
    """Write a recogniser, (B, 3, 112, 112) in [-1, 1] → (B, D), as an SDFR model and return D; what is written is run and compared.

    Raises:
        UserError: onnx or onnxruntime is not installed, task 1 with other than 512 numbers, or the written model disagrees with the network.
    """
    model = NormalisingNetwork(network)
    example = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dim = model.cpu().eval()(example).shape[1]
    if task == 1 and dim != TASK_1_DIM:
        raise UserError(f"the network gives {dim} numbers a face, SDFR's task 1 wants {TASK_1_DIM} (iResNet-50); train one with backbone.embed_dim {TASK_1_DIM}, or submit to task 2")
    write_onnx(model, example, Path(path), purpose="the export of an SDFR submission")
    open_model(path, task=task)
    return int(dim)


def open_model(path: Path | str, *, task: int = 2) -> Any:
    """Open an SDFR model with onnxruntime on the CPU and check its shapes as the server does; return the session.

    Raises:
        UserError: onnxruntime is not installed, no ONNX file, or inputs or outputs of another shape or type.
    """
    session = open_onnx(path, purpose="running an SDFR submission")
    inputs, outputs = [[(tuple(one.shape), one.type) for one in part] for part in (session.get_inputs(), session.get_outputs())]
    if inputs != [(INPUT_SHAPE, "tensor(float)")]:
        raise UserError(f"{path} takes {inputs}, SDFR expects one input {INPUT_SHAPE} of tensor(float), RGB in [0, 1]")
    fits = len(outputs) == 1 and len(outputs[0][0]) == 2 and outputs[0][0][0] == "batch_size" and isinstance(outputs[0][0][1], int) and outputs[0][1] == "tensor(float)"
    if not fits or (task == 1 and outputs[0][0][1] != TASK_1_DIM):
        raise UserError(f"{path} gives {outputs}, SDFR's task {task} expects one output ('batch_size', {TASK_1_DIM if task == 1 else 'D'}) of tensor(float)")
    return session


def model_scores(path: Path | str, faces: VerificationSet, *, task: int = 2, batch: int = 32) -> np.ndarray:
    """Return the cosine of each pair of a .bin set by an SDFR model, float32 (P,).

    Raises:
        UserError: an image that cannot be read or is not 112x112 (named).
    """
    session = open_model(path, task=task)
    name = session.get_inputs()[0].name
    rows = []
    for start in range(0, len(faces.images), batch):
        image_BHWC = np.stack([_face(faces, number) for number in range(start, min(start + batch, len(faces.images)))])
        rows.append(session.run(None, {name: np.ascontiguousarray(image_BHWC.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255.0)})[0])
    embed_ND = np.concatenate(rows)
    embed_ND = embed_ND / np.maximum(np.linalg.norm(embed_ND, axis=1, keepdims=True), 1e-8)
    return (embed_ND[::2] * embed_ND[1::2]).sum(axis=1)


def _face(faces: VerificationSet, number: int) -> np.ndarray:
    try:
        image_HWC = decode(faces.images[number])
    except UserError as error:
        raise UserError(f"{faces.names[number]}: {error}") from error
    if image_HWC.shape != (112, 112, 3):
        raise UserError(f"{faces.names[number]} is {image_HWC.shape[1]}x{image_HWC.shape[0]}, expected 112x112")
    return image_HWC
