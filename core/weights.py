"""Network weights as safetensors with their settings in the header; nothing that can carry code is ever loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import UserError
from .files import write_atomic


def save_weights(path: Path, module: nn.Module, *, kind: str, config: dict[str, Any], facts: dict[str, Any] | None = None, dtype: torch.dtype | None = None) -> None:
    """Write a module's parameters and buffers.

    Args:
        kind: what the file holds ("uiface", "autoencoder", "recogniser"); checked on loading.
        config: settings from which the module is built again.
        facts: provenance for people (data, steps, figures).
        dtype: storage type of floating tensors; None keeps them.
    """
    tensors = {name: _stored(tensor, dtype) for name, tensor in module.state_dict().items()}
    # One header entry, not several: safetensors writes several in random order, and equal weights should be equal files.
    header = {"facefoundry": json.dumps({"kind": kind, "config": config, "facts": facts or {}}, sort_keys=True)}
    write_atomic(path, lambda temporary: save_file(tensors, str(temporary), metadata=header))


def load_weights(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return (tensors as float32 where floating, config, facts) of a file written by `save_weights`.

    Raises:
        UserError: not a safetensors file (a pickle, say), damaged, or another kind.
    """
    if not path.is_file():
        raise UserError(f"no weights file at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("facefoundry", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); pickled checkpoints are not loaded here: they can run code") from error
    if header.get("kind") != kind:
        raise UserError(f"{path} holds '{header.get('kind', 'weights without a kind')}', expected '{kind}'")
    widened = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return widened, header["config"], header["facts"]


def load_into(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors strictly: a missing, superfluous or misshapen one is a UserError that names it."""
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the network: {error}") from error


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu()
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.contiguous().clone()
