"""Small recognisers for the claims about recognition: trained once each, their embeddings of the evaluation faces kept on disk.

A trained network is found again by everything that made it (recipe, seed, faces, teacher rows, weights it began from), so that the claims share
their baselines when they share `--work`. Training faces: the people of train112.zip with the most images. Evaluation faces: LFW folds 7-8, whose
people are not among them.

Axes: N faces, D embedding, P pairs, I people, S seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from evidence import DATA, Effect

from facefoundry.challenge.pair_lists import read_pairs
from facefoundry.challenge.verification import kfold_accuracy
from facefoundry.core.config import read_yaml
from facefoundry.core.files import sha256_file, write_atomic, write_json
from facefoundry.core.seeds import numpy_rng
from facefoundry.core.training import data_digest
from facefoundry.identity.sources import Faces, load_faces
from facefoundry.recognition.checkpoint import load_network
from facefoundry.recognition.distill import DistilRecipe, distil
from facefoundry.recognition.embedder import TorchEmbedder, embed_faces
from facefoundry.recognition.train import RecogniserRecipe, train_recogniser

HERE = Path(__file__).parent
RECIPE = HERE / "recogniser-claims.yaml"


@dataclass(kw_only=True)
class Lab:
    """What all trainings of a claim share.

    Attributes:
        work: folder of the networks and embeddings; several claims may share it.
        seeds: how often each variant is trained.
        people, each: training faces: this many people, this many images of each.
        settings: laid over the recipe of every variant, after its own changes, e.g. fewer steps.
    """

    work: Path
    seeds: int
    people: int
    each: int
    settings: tuple[str, ...] = ()

    @cached_property
    def train_faces(self) -> Faces:
        """The first images of the people with the most images, in the order of their names."""
        every = load_faces(DATA / "train112.zip")
        count_I = np.bincount(every.identity_N, minlength=len(every.names))
        chosen_I = np.sort(np.argsort(-count_I, kind="stable")[: self.people])
        place_N = np.arange(len(every)) - np.searchsorted(every.identity_N, every.identity_N)  # paths are sorted by person
        row_M = np.flatnonzero(np.isin(every.identity_N, chosen_I) & (place_N < self.each))
        return Faces(
            image_NHWC=every.image_NHWC[row_M], identity_N=np.searchsorted(chosen_I, every.identity_N[row_M]).astype(np.int32),
            names=tuple(every.names[i] for i in chosen_I), paths=tuple(every.paths[row] for row in row_M),
        )  # fmt: skip

    @cached_property
    def test_faces(self) -> Faces:
        """The 2,585 faces of LFW folds 7-8."""
        return load_faces(DATA / "lfw_folds7_8.zip")

    def embeddings(self, changes: Sequence[str], seed: int, *, test: Callable[[np.ndarray], np.ndarray] | None = None, teacher_ND: np.ndarray | None = None) -> np.ndarray:
        """Unit rows of the evaluation faces (each face's and its mirror image's features added) by a variant of the recipe, float32 (N, D).

        Args:
            changes: what makes the variant, as `--set` takes it.
            test: changes the evaluation faces, named by its `__name__`; None = as they are.
            teacher_ND: unit rows of a teacher for the training faces; the variant is then a student of it.
        """
        weights = self.network(changes, seed, teacher_ND=teacher_ND)
        path = weights.parent / f"embeddings-{test.__name__ if test else 'clean'}.npy"
        if not path.is_file():
            image_NHWC = self.test_faces.image_NHWC if test is None else test(self.test_faces.image_NHWC)
            embed_ND = embed_faces(TorchEmbedder(load_network(weights)[0], name=path.stem, flip=True), image_NHWC)
            write_atomic(path, lambda temporary: np.save(open(temporary, "wb"), embed_ND))
        return np.load(path)

    def network(self, changes: Sequence[str], seed: int, *, teacher_ND: np.ndarray | None = None) -> Path:
        """Return the weights of a variant, trained at need."""
        model = RecogniserRecipe if teacher_ND is None else DistilRecipe
        # A student's recipe has no default terms here: what teaches it stands in `changes`.
        plain = [] if teacher_ND is None else ["cosine=0", "relation=0"]
        recipe = model.load(RECIPE, [*plain, *changes, *self.settings, f"seed={seed}"])
        begun = getattr(recipe, "init", None)
        facts = {
            "recipe": recipe.model_dump(mode="json", exclude={"init", "partial_fc"}), "faces": data_digest(self.train_faces.image_NHWC, self.train_faces.identity_N),
            "teacher": None if teacher_ND is None else data_digest(teacher_ND), "init": sha256_file(begun) if begun else None,
        }  # fmt: skip
        folder = self.work / "recognisers" / sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
        weights = folder / "recogniser.safetensors"
        if not weights.is_file():
            write_json(folder / "made-of.json", {**facts, "changes": list(changes), "seed": seed})
            if teacher_ND is None:
                train_recogniser(recipe, self.train_faces, folder)
            else:
                distil(recipe, self.train_faces, folder, teacher_ND=teacher_ND)
        return weights


def lab_options(parser, *, people: int = 300, each: int = 8, seeds: int = 3) -> None:
    """Add the options of every claim about recognisers to an argparse parser."""
    parser.add_argument("--work", type=Path, default=Path("runs/claims/recognition"))
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--people", type=int, default=people)
    parser.add_argument("--each", type=int, default=each)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="lay a value over the recipe of every variant: --set steps=20")


def lab_of(options) -> Lab:
    """Return the lab that the options ask for."""
    return Lab(work=options.work, seeds=options.seeds, people=options.people, each=options.each, settings=tuple(options.settings))


def right_of_pairs(lab: Lab, embed_ND: np.ndarray, probe_ND: np.ndarray | None = None) -> np.ndarray:
    """Whether each of the 1,200 pairs is judged rightly, by the threshold that is best on the other fold, float (P,); `probe_ND` are other rows for the second faces."""
    pairs = read_pairs(DATA / "lfw_folds7_8_pairs.txt")
    row_of = {path: row for row, path in enumerate(lab.test_faces.paths)}
    first_P, second_P = np.array([[row_of[path] for path in pair] for pair in pairs.paths]).T
    score_P = np.einsum("pd,pd->p", embed_ND[first_P], (embed_ND if probe_ND is None else probe_ND)[second_P]).astype(float)
    threshold_P = kfold_accuracy(score_P, pairs.same_P, pairs.fold_P).threshold_F[np.unique(pairs.fold_P, return_inverse=True)[1]]
    return ((score_P >= threshold_P) == pairs.same_P).astype(float)


def tar_by_person(gallery_ND: np.ndarray, probe_ND: np.ndarray, person_N: np.ndarray, far: float, *, mated_NN: np.ndarray | None = None) -> np.ndarray:
    """Share of each person's mated pairs accepted at the threshold that this share of all non-mated pairs exceeds, (I of those with pairs,).

    Args:
        gallery_ND, probe_ND: rows of the same faces in the same or in two states; pairs are of different faces.
        mated_NN: which (gallery, probe) pairs count as mated, among those of one person; None = all.
    """
    cos_NN = gallery_ND @ probe_ND.T
    same_NN = person_N[:, None] == person_N
    other_P = cos_NN[~same_NN]
    wanted = max(1, int(far * len(other_P)))
    threshold = np.partition(other_P, len(other_P) - wanted)[len(other_P) - wanted]
    np.fill_diagonal(same_NN, False)
    row_P, column_P = np.nonzero(same_NN if mated_NN is None else same_NN & mated_NN)
    hit_P = cos_NN[row_P, column_P] > threshold
    count_I, hits_I = np.bincount(person_N[row_P]), np.bincount(person_N[row_P], weights=hit_P)
    return hits_I[count_I > 0] / count_I[count_I > 0]


def resampled(name: str, statistic: Callable[[int, int, np.ndarray], float], *, seeds: int, people: int, better: str, tolerance: float = 0.0, draws: int = 1000) -> Effect:
    """Compare a figure that is no mean over people; 95 % interval over seeds and people, the same draw on both sides.

    Args:
        statistic: (side 0 baseline or 1 method, seed, how often each person is drawn, int (I,)) → figure.
    """
    once_I = np.ones(people, int)
    baseline, method = (float(np.mean([statistic(side, seed, once_I) for seed in range(seeds)])) for side in (0, 1))
    rng = numpy_rng("bootstrap", name)
    gaps = []
    for _ in range(draws):
        chosen_S = rng.integers(0, seeds, seeds)
        drawn = [(seed, np.bincount(rng.integers(people, size=people), minlength=people)) for seed in chosen_S.tolist()]
        gaps.append(np.mean([statistic(1, seed, times_I) - statistic(0, seed, times_I) for seed, times_I in drawn]))
    low, high = np.nanpercentile(gaps, [2.5, 97.5])
    return Effect(name=name, baseline=baseline, method=method, difference=method - baseline, low=float(low), high=float(high), seeds=seeds, better=better, tolerance=tolerance)


def about(lab: Lab) -> str:
    """One line on what was trained."""
    values = read_yaml(RECIPE)[0]
    network = values["backbone"]
    return (
        f"Networks: {network['name']}, width {network['width']} on faces pooled to {112 // network['shrink']} px, {lab.people} people of train112.zip by {lab.each} images; "
        f"recipe benchmarks/claims/{RECIPE.name}. Scores: all pairs of the {len(lab.test_faces)} faces of LFW folds 7-8, thresholds by all non-mated pairs; pair accuracy by its list of 1,200."
    )
