"""A detector judged by generator and by what happened to the pictures on their way. Axes: N images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .data import Pictures
from .detector import Detector, detect
from .metrics import accuracies, average_precision
from .wear import WearName, worn

CONDITIONS: Mapping[str, tuple[WearName, float] | None] = {
    "as they are": None, "JPEG 95": ("jpeg", 95), "JPEG 75": ("jpeg", 75), "JPEG 50": ("jpeg", 50), "blur 1 px": ("blur", 1.0), "half size": ("resize", 0.5),
}  # fmt: skip
"""What is done to real and fake alike before they are judged."""


def under(image_NHWC: np.ndarray, condition: tuple[WearName, float] | None) -> np.ndarray:
    """Return the pictures after a condition, uint8."""
    return image_NHWC if condition is None else np.stack([worn(image_HWC, *condition) for image_HWC in image_NHWC])


def evaluate(detector: Detector, pictures: Pictures, conditions: Mapping[str, tuple[WearName, float] | None] = CONDITIONS) -> dict[str, Any]:
    """Return {condition: `figures`} of a detector."""
    found = {}
    for name, condition in conditions.items():
        findings = detect(detector, under(pictures.image_NHWC, condition))
        found[name] = {**figures(findings.fake_N, pictures), "attention_entropy": float(findings.entropy_N.mean())}
    return found


def figures(score_N: np.ndarray, pictures: Pictures) -> dict[str, Any]:
    """Return average precision and accuracies at 0.5 over all, and by source: of a fake one against all real ones, of a real one the share called fake.

    Average precision depends on the share of fakes among the judged: compare within one table only.
    """
    by_source: dict[str, Any] = {}
    for name, fake in pictures.sources:
        row_M = pictures.rows_of(name)
        if fake:
            judged_M = np.concatenate((np.flatnonzero(~pictures.fake_N), row_M))
            by_source[name] = {"ap": average_precision(score_N[judged_M], pictures.fake_N[judged_M]), "called_fake": float(np.mean(score_N[row_M] >= 0.5)), "images": len(row_M)}
        else:
            by_source[name] = {"called_fake": float(np.mean(score_N[row_M] >= 0.5)), "images": len(row_M)}
    return {"ap": average_precision(score_N, pictures.fake_N), "accuracy": accuracies(score_N, pictures.fake_N), "sources": by_source}
