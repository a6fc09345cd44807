"""Recognisers as ONNX files: ours written with a note of what they take, anybody's read by such a note; and insightface's packs.

An ONNX file does not say what its pixels mean. The note beside it (`FILE.yaml` for `FILE.onnx`) does, or arguments: nothing is guessed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.check import check
from ..core.config import Config
from ..core.errors import UserError, missing_extra
from ..core.files import write_bytes
from ..core.onnx_files import open_onnx, write_onnx


class OnnxPreprocessing(Config):
    """What a model takes: (pixel - mean) / std with pixels of 0...255, in this order of colours and at this size.

    Attributes:
        mean, std: one number, or one for each colour in the order the model takes them. 127.5 and 127.5: [-1, 1]; 0 and 255: [0, 1].
        channels: order of colours.
        size: side in pixels; aligned 112×112 faces are resized to it (bilinear, smoothed).
        layout: order of the axes.
    """

    mean: float | tuple[float, float, float]
    std: float | tuple[float, float, float]
    channels: Literal["rgb", "bgr"]
    size: int = Field(112, ge=16)
    layout: Literal["nchw", "nhwc"] = "nchw"


OURS = OnnxPreprocessing(mean=127.5, std=127.5, channels="rgb")


class OnnxEmbedder:
    """An ONNX recogniser as an `Embedder`, run by onnxruntime on the CPU; no gradients.

    Args:
        path: the model: one input of images, first output the embedding (B, D).
        preprocessing: None = read from the note beside it.
        name: what reports call it; None = the file's name.
        flip: add the embedding of the mirror image before normalising.

    Raises:
        UserError: no note, no such model, or one of another shape.
    """

    differentiable = False

    def __init__(self, path: Path | str, preprocessing: OnnxPreprocessing | None = None, *, name: str | None = None, flip: bool = False) -> None:
        self._path, self._flip = Path(path), flip
        self._preprocessing = preprocessing or read_note(self._path)
        self._session = open_onnx(self._path, purpose="an ONNX recogniser")
        self._input, self._fixed = _one_input(self._session, self._path)
        self.name = name or f"onnx:{self._path.stem}"
        self.dim = int(self.raw(torch.zeros(1, 3, 112, 112)).shape[1])

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        return F.normalize(self.raw(image_BCHW))

    def raw(self, image_BCHW: Tensor) -> Tensor:
        """Return the model's features before normalising, float32 (B, dim)."""
        check("image_BCHW", image_BCHW, "B 3 112 112")
        raw_BD = self._run(image_BCHW)
        return raw_BD + self._run(image_BCHW.flip(3)) if self._flip else raw_BD

    def _run(self, image_BCHW: Tensor) -> Tensor:
        given = prepared(image_BCHW.detach().cpu(), self._preprocessing).numpy()
        # A model exported for one number of images takes no other; the last few rows are filled up.
        step = self._fixed or max(1, len(given))
        parts = []
        for start in range(0, max(1, len(given)), step):
            part = given[start : start + step]
            missing = step - len(part) if self._fixed or not len(part) else 0
            padded = np.concatenate((part, np.zeros((missing, *given.shape[1:]), np.float32))) if missing else part
            parts.append(self._session.run(None, {self._input: padded})[0][: len(part)])
        found = np.concatenate(parts)
        if found.ndim != 2:
            raise UserError(f"{self._path} gives {found.shape}, expected one embedding a face, (B, D)")
        return torch.from_numpy(found.astype(np.float32, copy=False)).to(image_BCHW.device)


class InsightfaceEmbedder(OnnxEmbedder):
    """The recognition model of an insightface pack (buffalo_l, antelopev2 ...): a folder, such as ~/.insightface/models/buffalo_l.

    The pack's other models (detection, landmarks, age) have other inputs. As in insightface, a model that subtracts and multiplies in its first layers takes
    pixels of 0...255, others [-1, 1]; all take RGB.

    Raises:
        UserError: no such folder, or not exactly one recognition model in it.
    """

    def __init__(self, folder: Path | str, *, flip: bool = False) -> None:
        path = _recognition_model(Path(folder).expanduser())
        inside = _normalises_itself(path)
        preprocessing = OnnxPreprocessing(mean=0.0, std=1.0, channels="rgb") if inside else OURS
        super().__init__(path, preprocessing, name=f"insightface:{Path(folder).name}", flip=flip)


def export_recogniser(network: nn.Module, path: Path) -> int:
    """Write one of our recognisers, (B, 3, 112, 112) in [-1, 1] → (B, D), with its note, and return D; what is written is run and compared (1e-4).

    Raises:
        UserError: another suffix than .onnx; see also `write_onnx`.
    """
    if path.suffix != ".onnx":
        raise UserError(f"{path}: expected a name that ends in .onnx")
    example = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    dim = write_onnx(network, example, path, purpose="the export of a recogniser").shape[1]
    lines = [f"{key}: {value}" for key, value in OURS.model_dump().items()]
    write_bytes(note_of(path), "\n".join(["# What the model takes: (pixel of 0...255 - mean) / std.", *lines, ""]).encode())
    return dim


def prepared(image_BCHW: Tensor, preprocessing: OnnxPreprocessing) -> Tensor:
    """Turn float RGB faces in [-1, 1] into what a model takes."""
    x = (image_BCHW.float() + 1.0) * 127.5
    if preprocessing.size != x.shape[-1]:
        x = F.interpolate(x, (preprocessing.size, preprocessing.size), mode="bilinear", antialias=True)
    if preprocessing.channels == "bgr":
        x = x.flip(1)
    mean, std = (torch.tensor(value).reshape(-1, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    x = (x - mean) / std
    return x.permute(0, 2, 3, 1).contiguous() if preprocessing.layout == "nhwc" else x.contiguous()


def note_of(path: Path) -> Path:
    """Where the note of a model lies."""
    return path.with_suffix(".yaml")


def read_note(path: Path) -> OnnxPreprocessing:
    """Read what a model takes.

    Raises:
        UserError: no note, or one with unknown or missing keys.
    """
    note = note_of(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; expected an ONNX model")
    if not note.is_file():
        raise UserError(f"{path} does not say what its pixels mean: write {note.name} beside it, e.g. {{mean: 127.5, std: 127.5, channels: rgb, size: 112}} for what insightface trains")
    return OnnxPreprocessing.load(note)


def _one_input(session: Any, path: Path) -> tuple[str, int]:
    """Name of the input, and the number of images it always takes (0 = any)."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise UserError(f"{path} takes {[(one.name, one.shape) for one in inputs]}, expected one input of images")
    batch = inputs[0].shape[0]
    return inputs[0].name, batch if isinstance(batch, int) and batch > 0 else 0


def _recognition_model(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; expected an insightface pack, e.g. ~/.insightface/models/buffalo_l (unpack its zip there)")
    found = []
    for path in sorted(folder.glob("*.onnx")):
        session = open_onnx(path, purpose="an insightface pack")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) == len(outputs) == 1 and list(inputs[0].shape[1:]) == [3, 112, 112] and len(outputs[0].shape) == 2:
            found.append(path)
    if len(found) != 1:
        raise UserError(f"{folder} has {len(found)} recognition models among {len(list(folder.glob('*.onnx')))} ONNX files, expected one (faces of 112x112 in, one embedding out); use onnx:FILE for a single model")
    return found[0]


def _normalises_itself(path: Path) -> bool:
    """Whether a subtraction and a multiplication stand among the first eight layers."""
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx", "an insightface pack") from error
    first = onnx.load(str(path)).graph.node[:8]
    has = {kind: any(node.op_type == kind or node.name.startswith(other) for node in first) for kind, other in (("Sub", "_minus"), ("Mul", "_mul"))}
    return all(has.values()) or any(node.name == "bn_data" for node in first[:3])
