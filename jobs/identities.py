"""The anchors of a job: from the `identities:` section to the rows, with a count of what was dropped on the way.

Axes: I identities, D embedding.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..core.device import default_device
from ..core.errors import UserError
from ..core.files import bundled
from ..identity.anchor_sources import AnchorSource, Gallery, gaussian, uniform, uniform_within
from ..identity.anchors import LEAK_COSINE, MAX_COSINE, AnchorPrior, check_request, draw_from, prior_source
from ..identity.centres import read_centres, read_rows, unit_rows
from ..identity.repulsion import repel
from ..identity.separation import Rows, measure_separation, reaching
from .spec import IdentitySource

PRIOR = "anchor-prior.safetensors"

_LOOSE = 0.9


def files_of(source: IdentitySource) -> dict[str, Path]:
    """Return the files whose content decides the anchors: "" the source's own, ".centres" those of real people."""
    own = source.file or (None if source.source == "uniform" and source.dim else bundled(PRIOR))
    return {key: path for key, path in (("", own), (".centres", source.centres)) if path is not None}


def check_identities(source: IdentitySource) -> None:
    """Refuse what cannot be drawn, as far as it can be told without drawing.

    Raises:
        UserError: a file is absent or holds something else, widths differ, more is asked than a pool holds, or nothing is known of real
            people where the law is theirs.
    """
    for path in files_of(source).values():
        if not path.is_file():
            raise UserError(f"identities: the anchor file {path} is not there")
    if source.source == "file":  # compared when the anchors are made: it can take minutes
        return
    prior = _prior(source)
    if source.source == "prior":
        check_request(prior, source.count, **_limits(source))
    real_ID = real_people(source)
    if real_ID is None and source.source == "gaussian":
        raise UserError(
            "identities: 'source: gaussian' draws from the law of real people, and the bundled prior holds none of them to keep away from; give 'centres: real.safetensors' "
            "(facefoundry centres FACES --out real.safetensors), or 'file:' with a prior of your own (identity.anchors.fit_prior)"
        )
    if real_ID is None and source.source == "prior" and source.repulsion:
        raise UserError("identities: 'repulsion' would move the bundled anchors away from where they were checked; give 'centres: real.safetensors' to check them again, or leave it out")
    size, dim = open_source(source).size, open_source(source).dim
    if size is not None and size < source.count:
        raise UserError(f"identities: {source.file} holds {size} rows, but count = {source.count}; give at least {source.count}")
    if real_ID is not None and real_ID.shape[1] != dim:
        raise UserError(f"identities: the centres have {real_ID.shape[1]} numbers, the anchors {dim}; make the centres with the embedder that the anchors belong to")


def make_identities(source: IdentitySource, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the anchors, unit float32 (I, D), and counts for card and report.

    The counts: `drawn`, `leaked` (too near a real person), `crowded` (too near another anchor), the two limits, `people` (real ones compared
    with; 0 = none), and with repulsion what it did.

    Raises:
        UserError: see `check_identities`; the limits leave too few.
    """
    real_ID, limits = real_people(source), _limits(source)
    people = {"people": 0 if real_ID is None else len(real_ID)}
    if source.source == "file":
        return _given(source), people | {"drawn": source.count, "leaked": 0, "crowded": 0, **limits}
    limits = {"max_cosine": MAX_COSINE, "leak_cosine": LEAK_COSINE} | limits
    law = open_source(source)
    if source.repulsion is None:
        sample = draw_from(law, source.count, seed, real_ID=real_ID, **limits)
        return sample.anchor_ID, people | {"drawn": sample.drawn, "leaked": sample.leaked, "crowded": sample.crowded, **limits}
    return _repelled(source, law, real_ID, limits, seed, people)


def real_people(source: IdentitySource) -> np.ndarray | None:
    """Return the centres of all real people whom the anchors can be compared with here, (I, D), or None."""
    prior = _prior(source)
    found = [prior.real_ID] if prior is not None and len(prior.real_ID) else []
    if source.centres is not None:
        found.append(read_centres(source.centres))
    if len({rows.shape[1] for rows in found}) > 1:
        raise UserError(f"identities: the centres in {source.centres} have {found[1].shape[1]} numbers, those in {source.file} {found[0].shape[1]}; make both with the same embedder")
    return np.concatenate(found) if found else None


def open_source(source: IdentitySource) -> AnchorSource:
    """Return the candidates of a section; not for "file"."""
    if source.source == "embeddings":
        return Gallery(read_rows(source.file), f"identities: {source.file}")
    if source.source == "uniform":
        return uniform(source.dim) if source.dim else uniform_within(AnchorPrior.load(bundled(PRIOR)))
    return gaussian(_prior(source)) if source.source == "gaussian" else prior_source(_prior(source))


def _prior(source: IdentitySource) -> AnchorPrior | None:
    return AnchorPrior.load(source.file or bundled(PRIOR)) if source.source in ("prior", "gaussian") else None


def _limits(source: IdentitySource) -> dict[str, float]:
    return {key: value for key in ("max_cosine", "leak_cosine") if (value := getattr(source, key)) is not None}


def _given(source: IdentitySource) -> np.ndarray:
    """Return the anchors of a file after the checks that were asked for; nothing is dropped from a file silently."""
    anchor_ID = unit_rows(read_rows(source.file), f"identities: {source.file}")
    if len(anchor_ID) != source.count:
        raise UserError(f"identities: {source.file} has shape {anchor_ID.shape}, but count = {source.count}; give {source.count} rows, or set count to the rows there are")
    remedy = "drop them, or use 'source: embeddings', which does"
    if source.max_cosine is not None and (found := measure_separation(anchor_ID, source.max_cosine)).close:
        raise UserError(f"identities: in {source.file} {found.close} pairs have a cosine of {source.max_cosine} or more (the closest: rows {found.pair[0]} and {found.pair[1]}, {found.highest:.4f}); {remedy}")
    if source.centres is not None:
        real, limit = read_centres(source.centres), LEAK_COSINE if source.leak_cosine is None else source.leak_cosine
        if real.shape[1] != anchor_ID.shape[1]:
            raise UserError(f"identities: the centres have {real.shape[1]} numbers, the anchors {anchor_ID.shape[1]}; make the centres with the embedder that the anchors belong to")
        near_I = reaching(Rows(anchor_ID), Rows(real), limit)
        if near_I.any():
            raise UserError(f"identities: {int(near_I.sum())} anchors in {source.file} come within {limit} of a real person (the first is row {int(near_I.argmax())}); {remedy}")
    return anchor_ID


def _repelled(source: IdentitySource, law: AnchorSource, real_ID: np.ndarray | None, limits: dict[str, float], seed: int, counts: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw loosely, push apart, then hold the result to both limits."""
    settings = source.repulsion
    wanted = max(2, math.ceil(source.count * (1 + settings.spare)))
    wanted = wanted if law.size is None else min(wanted, law.size)
    first = draw_from(law, wanted, seed, max_cosine=max(limits["max_cosine"], _LOOSE), real_ID=real_ID, leak_cosine=limits["leak_cosine"])
    pushed = repel(first.anchor_ID, law.gallery(seed, settings.gallery) if settings.gallery else None, settings, device=default_device())
    before, after = (measure_separation(rows, limits["max_cosine"]) for rows in (first.anchor_ID, pushed.anchor_ND))
    last = draw_from(_InOrder(pushed.anchor_ND), source.count, seed, real_ID=real_ID, **limits)
    counts |= {"drawn": first.drawn, "leaked": first.leaked + last.leaked, "crowded": first.crowded + last.crowded, **limits}
    return last.anchor_ID, counts | {"highest_before_repulsion": round(before.highest, 4), "highest_after_repulsion": round(after.highest, 4)}


class _InOrder:
    """Rows as a source that keeps their order."""

    def __init__(self, row_ID: np.ndarray) -> None:
        self._row_ID = row_ID
        self.size, self.dim = row_ID.shape

    def blocks(self, seed: int, rows: int) -> Any:
        return (self._row_ID[start : start + rows] for start in range(0, self.size, rows))

    def gallery(self, seed: int, rows: int) -> np.ndarray:
        return self._row_ID[:0]
