"""The part of an inspection that needs a second network: perceptual distance, style, pose, and the comparison with another set.

Rests on a seeded sample of whole identities, whose size is stated beside the figures. Axes: N images, I identities, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.images import to_float
from ..core.perceptual import FeatureNetwork
from ..core.progress import track
from ..core.stats import Interval
from ..core.types import AttributePredictor, Embedder
from ..quality.coverage import FITTED_RANGES, Coverage, coverages
from ..quality.diversity import class_recall, identity_dispersion, manifold_figures
from ..quality.frechet import fid, kid
from ..quality.intervals import mean_interval
from ..quality.perceptual import mean_pair_distance, pooled
from ..quality.scan import Scan, drawn_rows, fetch, scan

NEIGHBOURS = 3


@dataclass(frozen=True, kw_only=True)
class LooksTools:
    """What looks are measured with.

    Attributes:
        network: feature maps. attributes: predicts some of `FITTED_RANGES` (pose, expression, light), or None.
        images, per_identity: size of the sample.
    """

    network: FeatureNetwork
    attributes: AttributePredictor | None = None
    images: int = 2000
    per_identity: int = 12


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What was found on `images` images.

    Attributes:
        figures: "perceptual", "style_dispersion", with intervals over identities.
        attributes: coverage of each; empty without a predictor.
        reference: figures against another set, or None.
    """

    network: str
    images: int
    figures: dict[str, Interval]
    attributes: dict[str, Coverage]
    reference: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Pooled features of a sample, its identities by name and by number, the perceptual distance of each identity, and the rows' images."""

    feature_ND: np.ndarray
    name_N: np.ndarray
    number_N: np.ndarray
    distance_I: np.ndarray
    style_I: np.ndarray
    image_NHWC: np.ndarray


def measure_looks(read: Scan, index_N: np.ndarray, tools: LooksTools, embedder: Embedder, *, seed: int = 0, reference: Path | None = None) -> Looks:
    """Measure a sample of a scanned set, and compare it with a sample of equal size of `reference`.

    Raises:
        UserError: no usable face in the reference.
    """
    mine = _sample(read, index_N, tools, seed)
    figures = {name: mean_interval(values, seed=seed) for name, values in (("perceptual", mine.distance_I), ("style_dispersion", mine.style_I))}
    attributes = {}
    if tools.attributes is not None:
        ranges = {name: FITTED_RANGES[name] for name in tools.attributes.names if name in FITTED_RANGES}
        value_NA = tools.attributes(mine.image_NHWC)[:, [tools.attributes.names.index(name) for name in ranges]]
        attributes = coverages(value_NA, mine.number_N, len(mine.distance_I), ranges)
    against = None if reference is None else _against(read, index_N, mine, reference, tools, embedder, seed)
    return Looks(network=tools.network.name, images=len(mine.name_N), figures={name: item for name, item in figures.items() if np.isfinite(item.value)}, attributes=attributes, reference=against)


def _sample(read: Scan, index_N: np.ndarray, tools: LooksTools, seed: int) -> _Sample:
    groups = drawn_rows(index_N, images=tools.images, per_identity=tools.per_identity, seed=seed)
    rows = np.concatenate(groups)
    image_NHWC = fetch(read.source, [read.names[row] for row in rows])
    number_N = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    features, distances = [], []
    for number in track(range(len(groups)), f"features ({tools.network.name})"):
        map_L = tools.network.maps(to_float(image_NHWC[number_N == number]))
        features.append(pooled(map_L))
        distances.append(mean_pair_distance(map_L))
    feature_ND = np.concatenate(features)
    names = np.array(read.identities)[rows]
    return _Sample(feature_ND=feature_ND, name_N=names, number_N=number_N, distance_I=np.array(distances), style_I=identity_dispersion(feature_ND, number_N, len(groups)), image_NHWC=image_NHWC)


def _against(read: Scan, index_N: np.ndarray, mine: _Sample, reference: Path, tools: LooksTools, embedder: Embedder, seed: int) -> dict[str, Any]:
    """FID, KID, precision, recall, density, coverage, D_intra where labels are shared, and ratios of the spreads to the reference's."""
    other = scan(reference, embedder)
    other_index_N = np.unique(np.array(other.identities), return_inverse=True)[1]
    theirs = _sample(other, other_index_N, tools, seed)
    size = min(len(mine.feature_ND), len(theirs.feature_ND))
    found: dict[str, Any] = {"dataset": str(reference), "images": size, "k": NEIGHBOURS}
    if size > 1:
        first, second = mine.feature_ND[:size], theirs.feature_ND[:size]
        found |= {"fid": fid(second, first), "kid": kid(second, first, seed=seed)[0]}
        if size > NEIGHBOURS:
            manifold = manifold_figures(second, first, k=NEIGHBOURS)
            found |= {name: getattr(manifold, name) for name in ("precision", "recall", "density", "coverage")}
    shared = class_recall(theirs.feature_ND, theirs.name_N, mine.feature_ND, mine.name_N, k=NEIGHBOURS)
    found |= {"d_intra": _mean(shared), "shared_identities": int(np.isfinite(shared).sum())}
    own, real = (_mean(identity_dispersion(part.embed_ND, number_N, int(number_N.max()) + 1)) for part, number_N in ((read, index_N), (other, other_index_N)))
    found |= {"dispersion_ratio": _ratio(own, real), "style_dispersion_ratio": _ratio(_mean(mine.style_I), _mean(theirs.style_I)), "perceptual_ratio": _ratio(_mean(mine.distance_I), _mean(theirs.distance_I))}
    return {name: value for name, value in found.items() if not (isinstance(value, float) and np.isnan(value))}


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _ratio(own: float, other: float) -> float:
    return own / other if other else float("nan")
