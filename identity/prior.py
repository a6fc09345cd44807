"""What real identities look like in the embedding space: the distribution from which new ones are drawn.

A Gaussian in the PCA space of real class centres is Vec2Face's source of identities. The dlib centres are not one Gaussian: their first axis
has two humps (excess kurtosis -0.8 over people). A mixture of four raises the held-out log density of real centres from 97.3 to
102.2 nats and brings the nearest-neighbour cosines of drawn identities near those of held-out people (median 0.57 against 0.59; one Gaussian: 0.52).

Axes: N images, I identities, D embedding, R principal axes, K mixture components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from ..core.check import check
from ..core.errors import UserError
from ..core.files import write_atomic
from ..core.seeds import numpy_rng
from ..core.weights import load_weights, save_tensors
from .centres import class_centres, unit_rows
from .mixture import Mixture, fit_mixture

COMPONENTS = 4
SHRINK = 0.3
"""Measured on 4200 people, 1000 held out: K = 1, 2, 4, 8, 16 gives 97.3, 100.3, 102.2, 102.2, 102.2 nats; four is the smallest that reaches the plateau."""

_TWIN_COSINE = 0.85
_KIND = "anchor-prior"


@dataclass(frozen=True, kw_only=True)
class AnchorPool:
    """Anchors that were checked where the real people were known, so that those need not travel.

    Attributes:
        anchor_ID: unit float32, (I, D).
        share_I: share of the prior that lies nearest to each, float32 (I,). A full pool is packed evenly, people are not: anchors drawn by
            their shares are as common or rare as draws from the prior.
        max_cosine: every two of them lie below it.
        leak_cosine: none reaches it to the centre of a real person.
        people: how many real people that were.
    """

    anchor_ID: np.ndarray
    share_I: np.ndarray
    max_cosine: float
    leak_cosine: float
    people: int


@dataclass(frozen=True, kw_only=True)
class AnchorPrior:
    """A distribution over identity directions, with the real people it must not reproduce or a pool that was checked against them.

    Attributes:
        mean_D: mean of the real class centres, (D,).
        axis_RD: principal axes, orthonormal rows, (R, D).
        mixture: density of the centres along these axes.
        real_ID: unit class centres of the real people, (I, D): biometric templates, for the leakage check. Empty in whatever is published.
        pool: anchors checked beforehand, or None.
    """

    mean_D: np.ndarray
    axis_RD: np.ndarray
    mixture: Mixture
    real_ID: np.ndarray
    pool: AnchorPool | None = None

    @classmethod
    def fit(cls, embed_ND: np.ndarray, identity_N: np.ndarray, *, components: int = COMPONENTS) -> AnchorPrior:
        """Fit to unit embeddings of real people; axes with no variance (dlib: 128 numbers, rank 81) are left out.

        Raises:
            ValueError: rows that are not unit length (NaN included), or too few people for the axes.
        """
        real_ID = class_centres(embed_ND, identity_N)
        mean_D = real_ID.mean(axis=0, dtype=np.float64)
        variance_R, axes_DR = np.linalg.eigh(np.cov(real_ID.T.astype(np.float64)))
        axis_RD = axes_DR[:, variance_R > 1e-6 * variance_R.max()].T[::-1]
        # Twins (one person under two names, an image in two folders) would draw the density together; the leakage check still holds all.
        single_ID = real_ID[_without_twins(real_ID)]
        point_NR = (single_ID - mean_D) @ axis_RD.T
        mixture = fit_mixture(point_NR, components=components, shrink=SHRINK, rng=numpy_rng("anchor-prior"))
        return cls(mean_D=mean_D, axis_RD=axis_RD, mixture=mixture, real_ID=real_ID)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return unit directions drawn from the prior, float32 (count, D); nothing is rejected."""
        point_ND = self.mean_D + self.mixture.draw(rng, count) @ self.axis_RD
        return (point_ND / np.linalg.norm(point_ND, axis=1, keepdims=True)).astype(np.float32)

    def gaussian(self) -> AnchorPrior:
        """Return the prior with one Gaussian in place of the mixture, same mean and covariance: Vec2Face's law. Without a pool, which has another law."""
        return replace(self, mixture=self.mixture.single(), pool=None)

    def save(self, path: Path) -> None:
        """Write a safetensors file; centres and pool as fp16 (cosines move by less than 0.001; `seal_prior` checks its pool after that)."""
        mixture, pool = self.mixture, self.pool
        arrays = {"mean": self.mean_D, "axes": self.axis_RD, "weight": mixture.weight_K, "offset": mixture.mean_KR, "factor": mixture.factor_KRR}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in arrays.items()}
        if len(self.real_ID):
            tensors["real"] = torch.from_numpy(self.real_ID.astype(np.float16))
        if pool:
            tensors |= {"pool": torch.from_numpy(pool.anchor_ID.astype(np.float16)), "share": torch.from_numpy(pool.share_I)}
        checks = {"max_cosine": pool.max_cosine, "leak_cosine": pool.leak_cosine, "people": pool.people} if pool else {}
        save_tensors(Path(path), tensors, kind=_KIND, config=checks)

    @classmethod
    def load(cls, path: Path) -> AnchorPrior:
        """Read a file written by `save`.

        Raises:
            UserError: absent, damaged, or another kind of file.
        """
        tensors, checks, _ = load_weights(Path(path), kind=_KIND)
        try:
            mean_D, axis_RD, weight_K, offset_KR, factor_KRR = (tensors[name].double().numpy() for name in ("mean", "axes", "weight", "offset", "factor"))
            real_ID = unit_rows(tensors["real"].numpy(), f"{path}, real,") if "real" in tensors else np.empty((0, len(mean_D)), np.float32)
            pool = AnchorPool(anchor_ID=unit_rows(tensors["pool"].numpy(), f"{path}, pool,"), share_I=tensors["share"].numpy(), **checks) if "pool" in tensors else None
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is not an anchor prior that can be read ({error} is missing); write it again with this version's fit_prior or seal_prior") from error
        mixture = Mixture(weight_K=weight_K / weight_K.sum(), mean_KR=offset_KR, factor_KRR=factor_KRR)
        return cls(mean_D=mean_D, axis_RD=axis_RD, mixture=mixture, real_ID=real_ID, pool=pool)


def fit_prior(embed_ND: np.ndarray, identity_N: np.ndarray, out: Path) -> AnchorPrior:
    """Fit the prior to unit embeddings (N, D) with their identities (N,) and write it to `out`, with the real centres: not a file to publish.

    Draw from it with `anchors.sample_anchors`; make a file without real people of it with `anchors.seal_prior`.
    """
    prior = AnchorPrior.fit(embed_ND, identity_N)
    prior.save(Path(out))
    return prior


def write_centre(raw_ND: np.ndarray, out: Path) -> np.ndarray:
    """Write the population mean of raw descriptors (N, D), key "mean", and return it, float32 (D,)."""
    check("raw_ND", raw_ND, "N D")
    mean_D = raw_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
    if not np.isfinite(mean_D).all():
        raise ValueError("raw_ND holds NaN or infinite descriptors; drop these rows first")
    write_atomic(Path(out), lambda temporary: save_file({"mean": mean_D}, temporary, metadata={"kind": "dlib-centre"}))
    return mean_D


def _without_twins(real_ID: np.ndarray) -> np.ndarray:
    """Mark rows that have no earlier row above the twin cosine, bool (I,)."""
    keep_I = np.ones(len(real_ID), bool)
    for start in range(0, len(real_ID), 1024):
        cos_BI = real_ID[start : start + 1024] @ real_ID.T
        earlier = np.arange(len(real_ID)) < np.arange(start, start + len(cos_BI))[:, None]
        keep_I[start : start + len(cos_BI)] = ~((cos_BI >= _TWIN_COSINE) & earlier).any(axis=1)
    return keep_I
