"""Network weights as safetensors with their settings in the header; nothing that can carry code is ever loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .errors import UserError
from .files import write_bytes
from .quantise import SCALE, quantise_rows, widen


def save_weights(
    path: Path, module: nn.Module, *, kind: str, config: dict[str, Any], facts: dict[str, Any] | None = None, dtype: torch.dtype | Literal["int8"] | None = None
) -> None:
    """Write a module's parameters and buffers.

    Args:
        kind: what the file holds ("uiface", "autoencoder", "recogniser"); checked on loading.
        config: settings from which the module is built again.
        facts: provenance for people (data, steps, figures).
        dtype: storage type of floating tensors; None keeps them; "int8" stores large matrices by rows (core.quantise), the rest as bfloat16.
    """
    tensors = module.state_dict()
    if dtype == "int8":
        tensors, dtype = quantise_rows(tensors), torch.bfloat16
    save_tensors(path, {name: _stored(tensor, None if name.endswith(SCALE) else dtype) for name, tensor in tensors.items()}, kind=kind, config=config, facts=facts)


def save_tensors(path: Path, tensors: dict[str, Tensor], *, kind: str, config: dict[str, Any], facts: dict[str, Any] | None = None) -> None:
    """Write named contiguous tensors in the types they have; the other arguments as in `save_weights`."""
    # One header entry, not several: safetensors writes several in random order, and equal weights should be equal files.
    header = {"facefoundry": json.dumps({"kind": kind, "config": config, "facts": facts or {}}, sort_keys=True)}
    # Through bytes: safetensors' own file writer makes the file private to its owner.
    write_bytes(path, save(tensors, metadata=header))


def load_weights(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return (tensors as float32 where floating or stored as int8 rows, config, facts) of a file written by `save_weights` or `save_tensors`.

    Raises:
        UserError: not a safetensors file (a pickle is never opened), damaged, or another kind.
    """
    header, tensors = read_safetensors(path)
    try:
        about = json.loads(header.get("facefoundry", "{}"))
        complete = "kind" not in about or {"config", "facts"} <= set(about)
    except (ValueError, TypeError):
        complete = False
    if not complete:
        raise UserError(f"the facefoundry entry in the header of {path} is damaged; copy or make the file again")
    if about.get("kind") != kind:
        raise UserError(f"{path} is a safetensors file but holds '{about.get('kind', 'weights of another maker')}', expected '{kind}'")
    try:
        return widen(tensors), about["config"], about["facts"]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; copy or make the file again") from error


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header's text entries and all tensors (CPU) of any safetensors file."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; expected a .safetensors file")
    with open(path, "rb") as file:
        start = file.read(9)
    # A safetensors header of, e.g., 0x0380 bytes begins like a pickle too: what tells them apart is the brace after the eight bytes of its length.
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") and start[8:] != b"{":
        raise UserError(f"{path} is a pickle (torch.save) file, expected safetensors; a pickle can run code when opened, so it is refused: convert it with safetensors.torch.save_file where it was made")
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error}); copy or make it again") from error


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
