"""Unlinkability and revocability of what is stored, with real secrets drawn for it. Axes: N faces, P pairs, G groups, C numbers of a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ...core.seeds import numpy_rng
from ...identity.sources import Faces
from .attacks.linkage import leaked_linkage, stored_linkage, weight_linkage
from .attacks.reidentification import FMR
from .slerp_template import Key
from .slerpface import Rows
from .subjects import Subject, TemplateSubject
from .unlinkability import LEAST_NON_MATED, d_sys


def draw_pairs(identity_N: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw mated and non-mated pairs of rows, at most `most` of each: (P, 2) int64, and which are mated, (P,)."""
    order = np.argsort(identity_N, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(identity_N[order])) + 1)
    mated = np.concatenate([m[np.stack(np.triu_indices(len(m), 1), 1)] for m in members])
    rng = numpy_rng(seed, "pairs")
    mated = mated[rng.permutation(len(mated))[:most]]
    other = rng.integers(0, len(identity_N), (2 * most + 100, 2))
    other = other[identity_N[other[:, 0]] != identity_N[other[:, 1]]][:most]
    return np.concatenate((mated, other)), np.arange(len(mated) + len(other)) < len(mated)


def linkage(subject: Subject, victims: Faces, probe: Any, seed: int) -> tuple[dict[str, Any], dict[str, float] | None]:
    """D_sys by what is stored, in each state of the keys; and the revocability of templates, None where nothing can be renewed."""
    pair_P2, same_P = draw_pairs(victims.identity_N, LEAST_NON_MATED, seed)

    def measured(score_P: np.ndarray) -> dict[str, Any]:
        return asdict(d_sys(score_P[same_P], score_P[~same_P]))

    if not isinstance(subject, TemplateSubject):
        first, second = pair_P2.T
        # The server recognises people by design: what it computes links them, whatever was done to the picture.
        return {"as stored": measured(subject.verify(subject.enrol(probe), first, probe, second))}, None
    one, two = subject.enrol(probe), subject.enrol(probe)
    person_keys = [Key.new() for _ in victims.names]
    same_key = [subject.enrol(probe, [person_keys[i] for i in victims.identity_N]) for _ in range(2)]
    found = {
        "keys secret": measured(linked(stored_linkage, one, two, pair_P2)),
        "keys secret, by weights": measured(linked(weight_linkage, one, two, pair_P2)),
        "keys leaked": measured(linked(leaked_linkage, one, two, pair_P2)),
        "key of a person used again": measured(linked(stored_linkage, same_key[0], same_key[1], pair_P2)),
    }
    return found, revocability(subject, probe, pair_P2, same_P)


def linked(score: Callable[[Rows, Rows], np.ndarray], one: Rows, two: Rows, pair_P2: np.ndarray) -> np.ndarray:
    """Score pairs of stored rows, some thousand at a time: rows of pairs are large, (P,)."""
    return np.concatenate([score(one.rows(part[:, 0]), two.rows(part[:, 1])) for part in np.array_split(pair_P2, max(1, len(pair_P2) // 8192))])


def revocability(subject: TemplateSubject, probe: Any, pair_P2: np.ndarray, same_P: np.ndarray) -> dict[str, float]:
    """Does a revoked template, or its key, still open the renewed one? Rates at the threshold of FMR 1e-3 of ordinary matching."""
    old, new = subject.enrol(probe), subject.enrol(probe)
    first, second = pair_P2.T
    impostor = subject.verify(new, first[~same_P], probe, second[~same_P])
    threshold = float(np.quantile(impostor, 1 - FMR))
    mixed = replace(new, key_BGC=old.key_BGC)
    mated = first[same_P], second[same_P]
    return {
        "threshold": threshold,
        "genuine": float((subject.verify(new, mated[0], probe, mated[1]) >= threshold).mean()),
        "genuine_with_revoked_key": float((subject.verify(mixed, mated[0], probe, mated[1]) >= threshold).mean()),
        "revoked_template_as_probe": float((linked(stored_linkage, old, new, np.stack((mated[0], mated[0]), 1)) >= threshold).mean()),
    }
