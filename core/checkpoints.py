"""Published PyTorch checkpoints, read without running what they may carry: tensors by name, put under the names of our networks.

Each floor that reads such files has its own table of names (generators.published, recognition.published); what is common stands here.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UserError
from .files import sha256_file
from .weights import read_safetensors


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a published file comes from, for the facts of the imported one."""

    project: str
    licence: str
    note: str


def read_tensors(path: Path, *, wrappers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the named tensors of a PyTorch checkpoint, or of a safetensors file with the same names; no code in it can run.

    Args:
        wrappers: prefixes that say how a network was wrapped when it was saved; any number, in any order, they are taken off the names.
            A Lightning file's "state_dict" is unwrapped.

    Raises:
        UserError: no such file, damaged, holds objects other than tensors, or two different tensors have one name.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; docs/published-weights.md says where the published checkpoints are")
    if path.suffix == ".safetensors":
        held: Any = read_safetensors(path)[1]
    else:
        held = _unpickled(path)
    if isinstance(held, Mapping) and isinstance(held.get("state_dict"), Mapping):
        held = held["state_dict"]
    if not isinstance(held, Mapping):
        raise UserError(f"{path} holds {type(held).__name__}, expected a state dict (name → tensor)")
    others = sorted(str(name) for name, value in held.items() if not (isinstance(value, Tensor) and isinstance(name, str)))
    if others:
        raise UserError(f"{path} holds entries that are not tensors ({listed(others)}): it is not a network's state dict (optimiser states are no weights); pass the model's own checkpoint")
    return _unwrapped(held, path, wrappers)


def matched(network: nn.Module, tensors: Mapping[str, Tensor], rename: Callable[[str], str], source: Path | str) -> dict[str, Tensor]:
    """Return `tensors` under the names and shapes of `network` (which may live on the meta device), float32.

    A 1×1 convolution of theirs may be a linear layer of ours: trailing axes of size 1 are dropped.

    Raises:
        UserError: keys are missing, unknown or misshapen; in their names, the first few of each.
    """
    wanted = {rename(name): (name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()}
    problems = []
    if missing := sorted(set(wanted) - set(tensors)):
        problems.append(f"missing: {listed(missing)}")
    if unknown := sorted(set(tensors) - set(wanted)):
        problems.append(f"unknown: {listed(unknown)}")
    shapes = {name: (tuple(tensors[name].shape), shape) for name, (_, shape) in wanted.items() if name in tensors}
    wrong = [f"{name} is {got}, expected {shape}" for name, (got, shape) in shapes.items() if got != shape + (1,) * (len(got) - len(shape))]
    if wrong:
        problems.append(f"misshapen: {listed(wrong)}")
    if problems:
        raise UserError(f"{source} does not fit the network: {'; '.join(problems)}; choose the kind that the file is of, or the whole checkpoint")
    return {ours: tensors[theirs].float().reshape(shape).contiguous() for theirs, (ours, shape) in wanted.items()}


def source_facts(kind: str, paths: Sequence[Path], source: Source) -> dict[str, Any]:
    """Provenance of an import: what, from which files (name and SHA-256), under which licence."""
    return {"imported": kind, "files": {path.name: sha256_file(path) for path in paths}, "project": source.project, "licence": source.licence, "note": source.note}


def listed(names: Sequence[str], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") if names else "nothing"


def _unpickled(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(2)
    if not start.startswith((b"PK", b"\x80")):
        raise UserError(f"{path} is no PyTorch checkpoint: it begins with {start!r} (perhaps a download page that was saved in its place); download it again")
    # Lightning 1.x keys its callbacks' states by class; an empty class of that name stands for it, nothing of Lightning is imported or run.
    stand_in = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    try:
        with torch.serialization.safe_globals([stand_in]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        if foreign := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error)):
            raise UserError(f"{path} holds the object {foreign[1]}, which could run code when opened, so the file is refused; expected tensors only: save the model's state_dict() where it was made") from error
        raise UserError(f"{path} is damaged or not a PyTorch checkpoint ({_first_line(error)}); download it again") from error


def _unwrapped(held: Mapping[str, Tensor], path: Path, wrappers: Sequence[str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in held.items():
        bare = name
        while wrapper := next((prefix for prefix in wrappers if bare.startswith(prefix)), None):
            bare = bare.removeprefix(wrapper)
        if bare in tensors and not torch.equal(tensors[bare], tensor):
            raise UserError(f"{path} holds two different tensors for '{bare}' ('{name}' and another wrapper's): save one network by itself, raw or averaged")
        tensors[bare] = tensor
    return tensors


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
