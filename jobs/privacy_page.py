"""The page that puts privacy methods beside each other and beside the unprotected model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes
from .page import picture_uri, render
from .privacy_evaluation import PICTURES, VALUES

FACES_SHOWN = 2


def compare_methods(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the page and return its summary.

    Raises:
        UserError: a folder without an evaluation, evaluations of different data, or none of the unprotected model.
    """
    held = [_read(folder) for folder in folders]
    if len({one["data"] for one in held}) > 1:
        raise UserError(f"the evaluations are of different faces ({', '.join(sorted({one['data'] for one in held}))}); evaluate all methods on the same --data")
    plain = next((one for one in held if one["kind"] == "plain"), None)
    if plain is None:
        raise UserError("none of these is of the unprotected model; run `facefoundry privacy evaluate --method unprotected …` on the same faces first")
    found = [_summary(one, plain) for one in held]
    pages = [one | {"faces": _pictures(folder)} for one, folder in zip(held, folders)]
    write_bytes(out, render("privacy.html.j2", {"summary": found, "methods": pages, "data": plain["data"], "plain": plain}))
    return {"data": plain["data"], "methods": found, "page": str(out)}


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / VALUES).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no evaluation ({type(error).__name__}); make it with `facefoundry privacy evaluate --out {folder}`") from error


def _summary(one: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """The row of a method: the attack that re-identified most stands for all."""
    worst = max(one["attacks"], key=lambda attack: _rate(attack["found"]), default=None)
    sharpest = max((attack for attack in one["attacks"] if attack["psnr_db"] is not None), key=lambda attack: attack["ssim"], default=None)
    linked = one["unlinkability"]
    # Without leaks: what the measure is defined for. By weights needs no leak either.
    unleaked = [value for name, value in linked.items() if not ("leaked" in name or "again" in name)]
    return {
        "method": one["method"], "kind": one["kind"], "tar": one["accuracy"]["tar_at_fmr_1e-2"], "loss": plain["accuracy"]["tar_at_fmr_1e-2"] - one["accuracy"]["tar_at_fmr_1e-2"],
        "gate": one["gate"]["passed"], "psnr": sharpest["psnr_db"] if sharpest else None, "ssim": sharpest["ssim"] if sharpest else None,
        "worst": worst["name"] if worst and _rate(worst["found"]) > 0 else "none of ours", "found": _rate(worst["found"]) if worst else 0.0, "chance": worst["found"]["chance"] if worst else 0.0,
        "d_sys": max(value["d_sys"] for value in unleaked), "floor": max(value["floor"] for value in unleaked),
        "revoked": one["revocability"]["genuine_with_revoked_key"] if one["revocability"] else None, "bytes": one["cost"]["bytes_a_face"], "ms": one["cost"]["protect_ms_a_face"],
        "judge": one["judge"],
    }  # fmt: skip


def _rate(found: dict[str, float]) -> float:
    rate = found["other_photo"]
    return rate if rate is not None and rate == rate else found["same_photo"]


def _pictures(folder: Path) -> list[list[tuple[str, str]]]:
    try:
        with np.load(folder / PICTURES, allow_pickle=False) as held:
            pictures = {name: held[name] for name in held.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / PICTURES} cannot be read ({type(error).__name__}); evaluate the method again") from error
    return [[(name, picture_uri(image[face])) for name, image in pictures.items() if face < len(image)] for face in range(FACES_SHOWN)]
