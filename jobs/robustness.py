"""What the verb `attack` measures: identification and verification at every strength, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..challenge.pair_lists import Pairs, read_pairs
from ..challenge.verification import kfold_accuracy
from ..core.errors import UserError
from ..core.seeds import numpy_rng
from ..core.types import Embedder
from ..identity.sources import Faces, load_faces
from ..recognition.embedder import embed_faces, load_embedder
from ..recognition.robustness import AttackSettings, identify_under_attack, make_gallery, score_under_attack, shares_under_attack


def strengths_of(text: str) -> list[float]:
    """Return the strengths a user wrote, ascending, each once.

    Raises:
        UserError: something that is no number from 0 to 255.
    """
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise UserError(f"--strengths '{text}': expected numbers with commas between them, e.g. 0,1,2,4,8 (grey levels of 255)") from error
    if not all(0 <= strength <= 255 for strength in found):
        raise UserError(f"--strengths '{text}': a strength is a number of grey levels, from 0 to 255")
    return found


def attack_report(weights: str, data: Path, strengths: Sequence[float], *, attack: str, steps: int, probes: int, pairs: Path | None, seed: int) -> dict[str, Any]:
    """Return the figures, "rows" with one entry a strength among them; rates are shares.

    Raises:
        UserError: an embedder without gradients, an unknown attack, pairs with another attack than PGD, pairs that the data lacks.
    """
    embedder, faces = load_embedder(weights), load_faces(data)
    settings = AttackSettings(name=attack, steps=steps, seed=seed)
    if pairs is not None and attack != "pgd":
        raise UserError(f"'{attack}' cannot attack pairs; use --attack pgd, or leave --pairs out")
    gallery = make_gallery(faces, probes, seed)
    right_SP = identify_under_attack(embedder, faces, gallery, strengths, settings)
    rows: list[dict[str, Any]] = [{"strength": strength, "identification": float(right_P.mean())} for strength, right_P in zip(strengths, right_SP)]
    found = {"recogniser": embedder.name, "attack": attack, "steps": steps, "probes": len(gallery.probe_P), "people in the gallery": len(gallery.first_I)}
    if pairs is not None:
        right_SP = _verify(embedder, faces, read_pairs(pairs), strengths, settings, probes)
        found["pairs"] = right_SP.shape[1]
        for row, right_P in zip(rows, right_SP):
            row["verification"] = float(right_P.mean())
    share = shares_under_attack(embedder, faces.image_NHWC[gallery.probe_P])
    return {**found, **({"fusing weight of clean faces": share} if share is not None else {}), "rows": rows}


def percent(row: dict[str, Any]) -> str:
    """Return the accuracies of a row for people."""
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in row.items() if name != "strength")


def _verify(embedder: Embedder, faces: Faces, pairs: Pairs, strengths: Sequence[float], settings: AttackSettings, count: int) -> np.ndarray:
    """Whether each of some pairs is judged rightly at each strength, bool (S, P); the threshold is the best of the other folds' clean pairs."""
    row_of = {path: row for row, path in enumerate(faces.paths)}
    missing = [name for name in pairs.images() if name not in row_of]
    if missing:
        raise UserError(f"the data lacks {len(missing)} of the pair list's images, e.g. {missing[0]}; its own are called e.g. {faces.paths[0]}")
    first_P, second_P = np.array([[row_of[name] for name in pair] for pair in pairs.paths]).T
    used = np.unique(np.concatenate((first_P, second_P)))
    embed_ND = embed_faces(embedder, faces.image_NHWC[used])
    reference_PD, clean_PD = (embed_ND[np.searchsorted(used, rows)] for rows in (first_P, second_P))
    threshold_F = kfold_accuracy(np.einsum("pd,pd->p", reference_PD, clean_PD).astype(float), pairs.same_P, pairs.fold_P).threshold_F
    threshold_P = threshold_F[np.unique(pairs.fold_P, return_inverse=True)[1]]
    kept = np.sort(numpy_rng(settings.seed, "pairs").permutation(len(pairs))[:count])
    score_SP = score_under_attack(embedder, reference_PD[kept], faces.image_NHWC[second_P[kept]], pairs.same_P[kept], threshold_P[kept], strengths, settings)
    return (score_SP >= threshold_P[kept]) == pairs.same_P[kept]
