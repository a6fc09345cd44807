"""What every claim script shares: minted sets kept on disk, figures by identity, paired bootstrap, verdicts, RESULTS.md.

A claim compares a baseline with a method over the same seeds and the same units (identities or pairs). The interval resamples seeds and, within
them, units, both with replacement, the same draw on both sides.

Axes: S seeds, U units, I identities, K images of an identity, D embedding, N = I x K images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from facefoundry.challenge.lfw import score_pairs
from facefoundry.core.files import bundled, write_atomic, write_json
from facefoundry.core.images import to_uint8
from facefoundry.core.progress import track
from facefoundry.core.seeds import derive_seed, numpy_rng
from facefoundry.core.types import Generator
from facefoundry.identity.anchors import AnchorPrior, sample_anchors
from facefoundry.identity.sources import Faces
from facefoundry.recognition.embedder import load_embedder
from facefoundry.recognition.train import RecogniserRecipe, train_recogniser

HERE = Path(__file__).parent
DATA = HERE.parent.parent.parent / "shared" / "data" / "faces"
RECIPE = HERE.parent.parent / "recipes" / "recogniser-small.yaml"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One comparison.

    Attributes:
        better: which direction the claim says.
        tolerance: how far the wrong way still counts as "not worse" (non-inferiority); 0 = the interval must lie wholly on the right side.
    """

    name: str
    baseline: float
    method: float
    difference: float
    low: float
    high: float
    seeds: int
    better: Literal["higher", "lower"] = "higher"
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the whole 95 % interval lies on the claimed side (or within the tolerance)."""
        return self.low > -self.tolerance if self.better == "higher" else self.high < self.tolerance


def effect(name: str, baseline_SU: np.ndarray, method_SU: np.ndarray, *, better: Literal["higher", "lower"] = "higher", tolerance: float = 0.0, draws: int = 4000) -> Effect:
    """Mean of the units, its paired difference and the 95 % percentile interval over seeds and units."""
    baseline_SU, method_SU = np.atleast_2d(np.asarray(baseline_SU, float)), np.atleast_2d(np.asarray(method_SU, float))
    if baseline_SU.shape != method_SU.shape:
        raise ValueError(f"{name}: baseline {baseline_SU.shape}, method {method_SU.shape}; expected the same seeds and units")
    gap_SU = method_SU - baseline_SU
    seeds, units = gap_SU.shape
    rng = numpy_rng("bootstrap", name)
    found = np.empty(draws)
    for draw in range(draws):
        chosen_S = rng.integers(0, seeds, seeds)
        found[draw] = np.mean([gap_SU[s, rng.integers(0, units, units)].mean() for s in chosen_S])
    low, high = np.percentile(found, [2.5, 97.5])
    return Effect(name=name, baseline=float(baseline_SU.mean()), method=float(method_SU.mean()), difference=float(gap_SU.mean()), low=float(low), high=float(high), seeds=seeds, better=better, tolerance=tolerance)


def write_claim(name: str, *, claim: str, method: str, shown: bool, effects: Sequence[Effect], notes: Sequence[str]) -> None:
    """Write results_<name>.json beside this file and render RESULTS.md anew."""
    rows = [{**asdict(one), "holds": one.holds} for one in effects]
    write_json(HERE / f"results_{name}.json", {"claim": claim, "method": method, "verdict": "shown" if shown else "not shown", "effects": rows, "notes": list(notes)})
    render()


def render() -> None:
    """Write RESULTS.md from every results_*.json here."""
    parts = ["# Claims of the papers, tried on the bundled models and real data", "Written by the scripts beside it; intervals are 95 % paired bootstrap over seeds and units. Figures are of small networks trained in minutes on two CPU cores: a claim not shown here may hold at the papers' scale."]
    for path in sorted(HERE.glob("results_*.json")):
        held = json.loads(path.read_text())
        parts += [f"## {held['method']}: {held['verdict']}", held["claim"]]
        rows = [f"| {e['name']} | {e['baseline']:.4g} | {e['method']:.4g} | {e['difference']:+.4g} | [{e['low']:+.4g}, {e['high']:+.4g}] | {e['seeds']} |" for e in held["effects"]]
        parts.append("\n".join(["| effect | baseline | method | difference | 95 % interval | seeds |", "|---|--:|--:|--:|--:|--:|", *rows]))
        notes = held["notes"] if isinstance(held["notes"], list) else [held["notes"]]
        parts.append("\n".join([*(f"- {note}" for note in notes), f"- `python benchmarks/claims/{path.stem.removeprefix('results_')}.py`"]))
    write_atomic(HERE / "RESULTS.md", lambda temporary: Path(temporary).write_text("\n\n".join(parts) + "\n"))


def people(count: int, seed: int) -> np.ndarray:
    """New identities from the bundled prior, unit float32 (count, D)."""
    return sample_anchors(AnchorPrior.load(bundled("anchor-prior.safetensors")), count, seed=seed)


def mint(generator: Generator, anchor_ID: np.ndarray, per_identity: int, seed: int, path: Path, batch: int = 32) -> np.ndarray:
    """Return K images of each identity, uint8 (I·K, 112, 112, 3), kept in `path` (.npy)."""
    if path.is_file():
        return np.load(path)
    order_N = np.repeat(np.arange(len(anchor_ID)), per_identity)
    seeds = [derive_seed(seed, "claim", n) for n in range(len(order_N))]
    parts = [
        to_uint8(generator.generate(anchor_ID[order_N[start : start + batch]], seeds[start : start + batch]).image_BCHW)
        for start in track(range(0, len(order_N), batch), path.stem)
    ]
    image_NHWC = np.concatenate(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda temporary: np.save(open(temporary, "wb"), image_NHWC))
    return image_NHWC


def accuracy_by_pair(image_NHWC: np.ndarray, per_identity: int, seed: int, folder: Path) -> np.ndarray:
    """`right_by_pair` of a recogniser trained on faces of which each `per_identity` show one person."""
    people_count = len(image_NHWC) // per_identity
    names = tuple(f"{i:05d}" for i in range(people_count))
    label_N = np.repeat(np.arange(people_count, dtype=np.int32), per_identity)
    faces = Faces(image_NHWC=image_NHWC, identity_N=label_N, names=names, paths=tuple(f"{names[label]}/{n}" for n, label in enumerate(label_N)), failed=())
    return right_by_pair(faces, seed, folder)


def right_by_pair(faces: Faces, seed: int, folder: Path) -> np.ndarray:
    """Train the small recogniser on the faces and return, for each pair of LFW folds 7-8, whether it was judged rightly, float (P,).

    The threshold for a fold is the best of the other fold, as in LFW's protocol. The result is kept in `folder`.
    """
    path = folder / "pairs.npy"
    if path.is_file():
        return np.load(path)
    weights = train_recogniser(RecogniserRecipe.load(RECIPE, [f"seed={seed}"]), faces, folder)
    result = score_pairs(load_embedder(str(weights)), DATA / "lfw_folds7_8.zip", DATA / "lfw_folds7_8_pairs.txt", flip=True)
    threshold_P = result.accuracy.threshold_F[np.unique(result.pairs.fold_P, return_inverse=True)[1]]
    right_P = ((result.score_P >= threshold_P) == result.pairs.same_P).astype(float)
    write_atomic(path, lambda temporary: np.save(open(temporary, "wb"), right_P))
    return right_P


def mean_within(distance_IKK: np.ndarray) -> np.ndarray:
    """Mean over the pairs of an identity's images, (I,)."""
    upper = np.triu_indices(distance_IKK.shape[1], 1)
    return distance_IKK[:, upper[0], upper[1]].mean(1)
