"""Filters: which rows of a data set to set aside, and why. A newcomer adds a class here or in a file beside.

A filter is a `Config` (what a user writes in a job file) with `apply(FilterInput) -> FilterResult`. Axes: N images, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import Self

from ..core.config import Config
from ..core.errors import UserError
from ..core.registry import Registry
from .duplicates import COSINE, find_duplicates
from .embeddings import checked_embeddings
from .groups import rows_by_identity
from .leakage import matching_centres, nearest_people
from .sdd_fiqa import Mode, sdd_fiqa

FILTERS: Registry[type] = Registry("filter", "facefoundry.quality")

_BLOCK = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterInput:
    """What filters look at; rows in one order throughout.

    Attributes:
        embed_ND: unit embeddings of the images.
        identity_N: their identities.
        anchor_ND: unit anchor each image was made from, or None (real images).
        image_hashes: one text for each image, equal exactly where the pixels are equal.
        perceptual_N: perceptual hashes (`image_statistics.perceptual_hash`), uint64, or None.
        real_centres: unit centres of real people, (I, D), for the leakage filter, or None.
    """

    embed_ND: np.ndarray
    identity_N: np.ndarray
    anchor_ND: np.ndarray | None = None
    image_hashes: tuple[str, ...] = ()
    perceptual_N: np.ndarray | None = None
    real_centres: np.ndarray | None = None

    def __post_init__(self) -> None:
        checked_embeddings(self.embed_ND, self.identity_N)
        if self.anchor_ND is not None:
            checked_embeddings(self.anchor_ND, self.identity_N, name="anchors")
        if self.image_hashes and len(self.image_hashes) != len(self.embed_ND):
            raise UserError(f"{len(self.image_hashes)} image hashes for {len(self.embed_ND)} images; expected one for each")
        if self.perceptual_N is not None and len(self.perceptual_N) != len(self.embed_ND):
            raise UserError(f"{len(self.perceptual_N)} perceptual hashes for {len(self.embed_ND)} images; expected one for each")

    def __len__(self) -> int:
        return len(self.embed_ND)

    def subset(self, rows: np.ndarray) -> Self:
        """Return some rows, in the order given."""
        return type(self)(
            embed_ND=self.embed_ND[rows], identity_N=self.identity_N[rows], real_centres=self.real_centres, image_hashes=tuple(self.image_hashes[row] for row in rows) if self.image_hashes else (),
            anchor_ND=None if self.anchor_ND is None else self.anchor_ND[rows], perceptual_N=None if self.perceptual_N is None else self.perceptual_N[rows],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterResult:
    """What a filter found.

    Attributes:
        reasons: for each row why it is set aside, with the figures, or None to keep it.
        scores: named figures of every row to add to its record, float32, (N,); NaN where there is none.
        refused: identities that are set aside as such, so that no other image of theirs would do either.
    """

    reasons: list[str | None]
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    refused: frozenset[int] = frozenset()


class Filter(Protocol):
    """A named rule; see the classes below."""

    def apply(self, data: FilterInput) -> FilterResult:
        """Judge every row."""
        ...


def build_filter(settings: Mapping[str, Any], *, source: str = "filter") -> Filter:
    """Return the filter of `{name: sdd_fiqa, below: 20}`; unknown names and keys are `UserError`s with the near names."""
    if "name" not in settings:
        raise UserError(f"{source}: 'name' is missing; expected one of {', '.join(FILTERS)}")
    return FILTERS[str(settings["name"])].parse({key: value for key, value in settings.items() if key != "name"}, source=source)


@FILTERS.register("sdd_fiqa")
class SddFiqaFilter(Config):
    """Set aside images of low SDD-FIQA quality: below a label 0..100, or the lowest share of the set.

    Images of identities with one image have no label and are kept. `lowest_share` cuts by rank: exactly floor(share · labelled images)
    go, also where many labels are equal (with `signed` every mislabelled image has 0). Of equal labels the lower mean cosine to the
    other images of the identity goes first, then the earlier row.
    """

    below: float | None = Field(None, ge=0, le=100)
    lowest_share: float | None = Field(None, gt=0, lt=1)
    mode: Mode = "pool"
    signed: bool = True
    seed: int = 0

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.below is None) == (self.lowest_share is None):
            raise ValueError("expected exactly one of 'below' (label 0..100) and 'lowest_share' (0..1)")
        return self

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(lowest_share=0.25)

    def apply(self, data: FilterInput) -> FilterResult:
        """Label every row and compare."""
        label_N = sdd_fiqa(data.embed_ND, data.identity_N, mode=self.mode, seed=self.seed, signed=self.signed)
        reasons = self._lowest(label_N, data) if self.below is None else _reasons_below("sdd_fiqa", label_N, self.below, digits=1)
        return FilterResult(reasons=reasons, scores={"sdd_fiqa": label_N})

    def _lowest(self, label_N: np.ndarray, data: FilterInput) -> list[str | None]:
        own_N = _own_cosine(data)
        order = np.lexsort((own_N, label_N))  # stable, so rows decide last; NaN sorts to the end
        known = int(np.isfinite(label_N).sum())
        count = math.floor((self.lowest_share or 0.0) * known + 1e-9)  # 0.29 * 100 is 28.999999999999996
        reasons: list[str | None] = [None] * len(label_N)
        for rank, row in enumerate(order[:count].tolist(), 1):
            reasons[row] = f"sdd_fiqa {label_N[row]:.1f} (own cosine {own_N[row]:.3f}): rank {rank} of {known}, the lowest {count} go (share {self.lowest_share:g})"
        return reasons


@FILTERS.register("anchor_similarity")
class AnchorSimilarityFilter(Config):
    """Set aside images that lost the identity they were made for: cosine to the own anchor below a limit."""

    below: float = Field(ge=-1, le=1)

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(below=0.3)

    def apply(self, data: FilterInput) -> FilterResult:
        """Compare each image with its anchor."""
        if data.anchor_ND is None:
            raise UserError("the anchor_similarity filter needs the anchors the images were made from, and this set has none; remove the filter")
        cos_N = np.einsum("nd,nd->n", data.embed_ND, data.anchor_ND).astype(np.float32)
        return FilterResult(reasons=_reasons_below("anchor_similarity", cos_N, self.below, digits=3), scores={"anchor_similarity": cos_N})


@FILTERS.register("duplicate")
class DuplicateFilter(Config):
    """Set aside repeated images: equal pixels anywhere in the set, a cosine above a limit to an earlier kept image, or a near-equal perceptual hash.

    The first of each kind stays, also where the two carry different identities (the reason names the other one). `hash_bits` (of 64; 6 catches
    re-encoded and resampled copies) looks anywhere in the set and asks for a cosine of 0.9 besides: aligned faces look alike to a hash.
    """

    above: float | None = Field(None, gt=0, le=1)
    within_identity: bool = True
    hash_bits: int | None = Field(None, ge=0, le=16)

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(above=0.98)

    def apply(self, data: FilterInput) -> FilterResult:
        """Compare each row with the earlier kept rows."""
        if self.hash_bits is not None and data.perceptual_N is None:
            raise UserError("the duplicate filter has 'hash_bits', but this set has no perceptual hashes (it was begun by an earlier version); remove it or run into another --out")
        if not data.image_hashes and self.above is None and self.hash_bits is None:
            raise UserError("the duplicate filter has neither image hashes nor a limit 'above'; set above: 0.98 or so")
        reasons: list[str | None] = [None] * len(data)
        first: dict[str, int] = {}
        for row, digest in enumerate(data.image_hashes):
            earlier = first.setdefault(digest, row)
            if earlier != row:
                reasons[row] = f"duplicate: same pixels as row {earlier} (identity {int(data.identity_N[earlier])})"
        if self.above is not None:
            for row, earlier, cos in _close_pairs(data, self.above, self.within_identity):
                if reasons[row] is None and reasons[earlier] is None:
                    reasons[row] = f"duplicate {cos:.4f} > {self.above:.4f}: cosine to row {earlier} (identity {int(data.identity_N[earlier])})"
        if self.hash_bits is not None and data.perceptual_N is not None:
            for pair in find_duplicates(data.embed_ND, data.perceptual_N, bits=self.hash_bits, cosine=COSINE):
                if reasons[pair.row] is None and reasons[pair.earlier] is None:
                    reasons[pair.row] = f"duplicate: hash {pair.bits} of 64 bits and cosine {pair.cosine:.4f} from row {pair.earlier} (identity {int(data.identity_N[pair.earlier])})"
        return FilterResult(reasons=reasons)


@FILTERS.register("leakage")
class LeakageFilter(Config):
    """Set aside images too close to a real person's centre: cosine above a limit (image against centre, not only centre to centre)."""

    above: float = Field(gt=-1, le=1)

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(above=0.9)

    def apply(self, data: FilterInput) -> FilterResult:
        """Find each image's nearest real centre."""
        if data.real_centres is None:
            raise UserError("the leakage filter needs centres of real people, and none were given (none ship); make them with identity.centres.write_centres or remove the filter")
        nearest_N, cos_N, _ = nearest_people(data.embed_ND, matching_centres(data.embed_ND, data.real_centres), self.above)
        reasons = [f"leakage {cos:.3f} > {self.above:.3f}: real centre {near}" if cos > self.above else None for cos, near in zip(cos_N.tolist(), nearest_N.tolist())]
        return FilterResult(reasons=reasons, scores={"leakage": cos_N})


def _own_cosine(data: FilterInput) -> np.ndarray:
    """Mean cosine of each image to the other images of its identity, (N,); 0 where there is none."""
    _, group_N, count_I = np.unique(data.identity_N, return_inverse=True, return_counts=True)
    sum_ID = np.zeros((len(count_I), data.embed_ND.shape[1]))
    np.add.at(sum_ID, group_N, data.embed_ND)
    others_ND = sum_ID[group_N] - data.embed_ND
    return np.einsum("nd,nd->n", data.embed_ND, others_ND) / np.maximum(1, count_I[group_N] - 1)


def _reasons_below(name: str, score_N: np.ndarray, limit: float, digits: int) -> list[str | None]:
    return [f"{name} {score:.{digits}f} < {limit:.{digits}f}" if score < limit else None for score in score_N.tolist()]


def _close_pairs(data: FilterInput, above: float, within_identity: bool) -> list[tuple[int, int, float]]:
    """Pairs (row, earlier row, cosine) above the limit, by row, then by earlier row."""
    groups = rows_by_identity(data.identity_N) if within_identity else [np.arange(len(data))]
    found = []
    for group in groups:
        for begin in range(0, len(group), _BLOCK):
            rows = group[begin : begin + _BLOCK]
            earlier = group[: begin + len(rows)]
            cos_RN = data.embed_ND[rows] @ data.embed_ND[earlier].T
            close_RN = (cos_RN > above) & (earlier < rows[:, None])
            found += [(int(rows[r]), int(earlier[n]), float(cos_RN[r, n])) for r, n in zip(*np.nonzero(close_RN))]
    return sorted(found)
