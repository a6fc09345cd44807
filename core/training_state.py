"""What a training leaves on disk while it runs: the state it resumes from, and its log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import UserError
from .files import write_atomic, write_bytes


class Keeper:
    """Saves and restores the state of one run."""

    def __init__(self, out: Path, settings: dict[str, Any], objective: nn.Module, optimiser: Any, average: Any) -> None:
        self._path, self._settings = out / "state.pt", settings
        self._objective, self._optimiser, self._average = objective, optimiser, average

    def restore(self) -> int:
        state = load_state(self._path)
        if state is None:
            return 0
        held = json.loads(state.get("settings", "{}"))
        if held != self._settings:
            changed = [f"{key}: {held.get(key)!r} there, {self._settings.get(key)!r} now" for key in sorted({*held, *self._settings}) if held.get(key) != self._settings.get(key)]
            raise UserError(f"{self._path} belongs to a training with another recipe or other data ({'; '.join(changed)}); choose another output folder, or delete that file to start again")
        self._objective.load_state_dict(state["objective"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        return int(state["step"])

    def save(self, step: int) -> None:
        average = self._average.state_dict() if self._average is not None else None
        state = {"settings": json.dumps(self._settings), "step": step, "objective": self._objective.state_dict(), "optimiser": self._optimiser.state_dict(), "average": average}
        write_atomic(self._path, lambda temporary: torch.save(state, temporary))


def load_state(path: Path) -> dict[str, Any] | None:
    """Return a resume state, or None where there is none yet; nothing in the file is executed.

    Raises:
        UserError: the file is damaged or holds objects other than tensors, numbers and strings.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail in many ways inside the restricted unpickler; all mean the same to the user
        raise UserError(f"{path} is not a training state that can be trusted or read ({str(error).partition(chr(10))[0] or type(error).__name__}); delete it to start again") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds {type(state).__name__}, expected a training state; delete it to start again")
    return state


class Log:
    """One JSON line for each logged step, and the same numbers to TensorBoard; lines after the resumed step are dropped."""

    def __init__(self, out: Path, start: int, accelerator: Any) -> None:
        self._path, self._accelerator = out / "log.jsonl", accelerator
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": start}})
        if accelerator.is_main_process:
            lines = self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else []
            write_bytes(self._path, b"".join(line for line in lines if _step_of(line) < start))

    def write(self, step: int, values: dict[str, float]) -> None:
        self._accelerator.log(values, step=step)
        if self._accelerator.is_main_process:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **{name: round(value, 6) for name, value in values.items()}}) + "\n")


def _step_of(line: bytes) -> float:
    """Return a log line's step; a line cut by a kill counts as never written."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
