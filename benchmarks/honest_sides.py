"""The sides of the honest comparison: minted pools, rows of real faces, mixtures, filtered rows, and the score of a recogniser trained on any of them.

What `honest_number.py` and `honest_curves.py` share. Everything is nested: a smaller set is the first people and the first images of a larger one,
because anchors and seeds of a job do not depend on how many it makes. Axes: N images, I identities.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from facefoundry.challenge.lfw import score_pairs
from facefoundry.identity.sources import Faces, load_faces
from facefoundry.jobs.plan import make_plan, read_plan
from facefoundry.jobs.publish import gather
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import JobSpec, bundled_job, load_job
from facefoundry.quality.filters import FilterInput, build_filter
from facefoundry.recognition.embedder import load_embedder
from facefoundry.recognition.train import RecogniserRecipe, train_recogniser

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "shared" / "data" / "faces"
RECIPE = HERE.parent / "recipes" / "recogniser-small.yaml"
OVERLAP = ("lfw_Sung_Hong_Choi",)
"""A training person who also seems to be in folds 7-8 under another spelling (dlib cosine .87): left out."""

JOBS = {
    "uiface": ("demo-job.yaml", ("generator.sampler.solver=unipc", "generator.sampler.steps=12")),
    "id3": ("demo-id3-job.yaml", ("generator.sampler.steps=10",)),
    "lcm": ("demo-lcm-job.yaml", ()),
    "morphface": ("demo-morphface-job.yaml", ()),
    "rendered": ("rendered-job.yaml", ()),
}
"""The demo's job of each generator, the slower ones with fewer steps: UIFace by its fast preset (`UIFaceSampler.fast`), ID³ with 10 steps of the demo's 15
(weights and guidance before the present; 48 images, one seed: cosine to the anchor 0.455 against 0.450, AUC 0.997 against 0.996, dispersion 0.260 against 0.269, two thirds of the time)."""

FILTERS = ({"name": "sdd_fiqa", "lowest_share": 0.1}, {"name": "anchor_similarity", "below": 0.3})
"""The demo job's filter and a limit to the own anchor, each over what the one before kept."""


def job_of(generator: str, identities: int, per_identity: int, judge: str = "dlib") -> JobSpec:
    """Return the job that mints a generator's faces without a filter, so that N stays N."""
    job, more = JOBS[generator]
    settings = [f"identities.count={identities}", f"per_identity={per_identity}", "identities.max_cosine=null", "filters=[]", f"name=honest-{generator}", f"judge={judge}", "engine.batch=32", "writer.shard_identities=32", *more]
    return load_job(bundled_job(job), settings)


def mint(generator: str, identities: int, per_identity: int, folder: Path, judge: str = "dlib") -> Faces:
    """Return the minted faces, going on where `folder` was left."""
    run_job(job_of(generator, identities, per_identity, judge), folder)
    return load_faces(folder)


@functools.cache
def source_key(generator: str) -> str:
    """Return eight digits that change with a generator's weights and settings, not with how many faces are made of it or who embeds them."""
    return make_plan(job_of(generator, 1, 1, "mobilefacenet-small")).fingerprint[:8]


class NoPool(Exception):
    """Nobody minted so many people and images of this generator with its present weights, and nobody is at it."""


def standing_pool(generator: str, least: tuple[int, int], work: Path) -> Path:
    """Return the folder of the smallest finished pool that holds `least` (people, images each).

    Raises:
        filelock.Timeout: another process mints of this generator. NoPool: none does.
    """
    found = _standing(work, generator, least)
    if found is None:
        with pool_lock(work, generator, 0.0):
            found = _standing(work, generator, least)
    if found is None:
        raise NoPool(generator)
    return found


def mint_pool(generator: str, least: tuple[int, int], work: Path, judge: str) -> Path:
    """Return the pool of `standing_pool`, minting it (or going on where that was cut) where there is none; waits for another process that mints of it."""
    with pool_lock(work, generator, -1):
        if (found := _standing(work, generator, least)) is None:
            found = work / "pools" / f"{generator}-{least[0]}x{least[1]}-{judge}-{source_key(generator)}"
            run_job(job_of(generator, *least, judge), found, workers=1)
    return found


def pool_lock(work: Path, generator: str, wait_s: float) -> FileLock:
    """Lock of who mints of a generator; -1 = wait for ever."""
    (work / "pools").mkdir(parents=True, exist_ok=True)
    return FileLock(work / "pools" / f"{generator}.lock", timeout=wait_s)


def _standing(work: Path, generator: str, least: tuple[int, int]) -> Path | None:
    key, found = source_key(generator), []
    for folder in (work / "pools").glob(f"{generator}-*x*-*-{key}"):
        size = tuple(map(int, folder.name.removeprefix(f"{generator}-").split("-")[0].split("x")))
        if size[0] >= least[0] and size[1] >= least[1] and (folder / "report.json").is_file():
            found.append((size[0] * size[1], folder))
    return min(found)[1] if found else None


def people(faces: Faces, chosen: Sequence[tuple[int, np.ndarray]]) -> Faces:
    """Return some rows of some people as a set of its own: [(identity, rows)], renumbered in the order given."""
    row_N = np.concatenate([rows for _, rows in chosen])
    label_N = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(rows) for _, rows in chosen])
    return Faces(image_NHWC=faces.image_NHWC[row_N], identity_N=label_N, names=tuple(faces.names[i] for i, _ in chosen), paths=tuple(faces.paths[row] for row in row_N))


def first(faces: Faces, identities: int, per_identity: int, start: int = 0) -> Faces:
    """Return the first images of `identities` people from the `start`-th on (a pool's own order)."""
    chosen = []
    for identity in range(start, start + identities):
        rows = np.flatnonzero(faces.identity_N == identity)[:per_identity]
        if len(rows) < per_identity:
            raise SystemExit(f"person {identity} of the pool has {len(rows)} images, expected {per_identity}; mint a larger pool")
        chosen.append((identity, rows))
    return people(faces, chosen)


def _most_images_first(faces: Faces) -> list[int]:
    count_I = np.bincount(faces.identity_N, minlength=len(faces.names))
    return [int(i) for i in np.lexsort((faces.names, -count_I)) if faces.names[i] not in OVERLAP]


def real_subset(faces: Faces, identities: int, per_identity: int) -> Faces:
    """The people with the most images first (name breaks ties), the first images of each."""
    rows_I = {i: np.flatnonzero(faces.identity_N == i)[:per_identity] for i in _most_images_first(faces)[:identities]}
    chosen = [(i, rows) for i, rows in rows_I.items() if len(rows) == per_identity]
    if len(chosen) < identities:
        raise SystemExit(f"only {len(chosen)} people have {per_identity} images; lower --identities")
    return people(faces, chosen)


def real_like(faces: Faces, identities: int, images: int) -> Faces:
    """Return exactly `images` real faces of exactly `identities` people: those with the most images, each capped at one number.

    The cap is the lowest that reaches the count; the last people at the cap give one less until it is met. Where everybody has enough images this is
    `real_subset` with images / identities each.
    """
    order = _most_images_first(faces)[:identities]
    count_I = np.bincount(faces.identity_N, minlength=len(faces.names))[order]
    if len(order) < identities or count_I.sum() < images:
        raise SystemExit(f"{len(order)} real people with {count_I.sum()} images; {identities} with {images} were asked for")
    take_I = capped(count_I, images)
    return people(faces, [(i, np.flatnonzero(faces.identity_N == i)[:take]) for i, take in zip(order, take_I)])


def capped(count_I: np.ndarray, total: int) -> np.ndarray:
    """Return how many each gives so that all give `total` together and nobody more than one cap (or one less); counts fall or stay along the list."""
    cap = next(cap for cap in range(1, int(count_I.max()) + 1) if np.minimum(count_I, cap).sum() >= total)
    take_I = np.minimum(count_I, cap)
    take_I[np.flatnonzero(take_I == cap)[::-1][: take_I.sum() - total]] -= 1
    return take_I


def joined(parts: Sequence[Faces]) -> Faces:
    """Return several sets as one; nobody of one is a person of another."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.names) for part in parts[:-1])])
    return Faces(
        image_NHWC=np.concatenate([part.image_NHWC for part in parts]),
        identity_N=np.concatenate([part.identity_N + start for part, start in zip(parts, starts)]).astype(np.int32),
        names=tuple(f"{k}-{name}" for k, part in enumerate(parts) for name in part.names),
        paths=tuple(f"{k}-{path}" for k, part in enumerate(parts) for path in part.paths),
    )


def kept_rows(folder: Path) -> np.ndarray:
    """Return which images of an unfiltered pool pass FILTERS by its judge, bool (N,), rows by identity and image."""
    rows = gather(folder, read_plan(folder))
    data, left_M = FilterInput(embed_ND=rows.embed_ND, identity_N=rows.identity_N, anchor_ND=rows.anchor_ND), np.arange(len(rows.identity_N))
    for settings in FILTERS:
        reasons = build_filter(settings).apply(data.subset(left_M)).reasons
        left_M = left_M[[reason is None for reason in reasons]]
    return np.isin(np.arange(len(rows.identity_N)), left_M)


def refilled(faces: Faces, kept_N: np.ndarray, identities: int, per_identity: int) -> tuple[Faces, int]:
    """Return the first `per_identity` images of each of the first people that passed, and how many had to be taken although they did not.

    What a filter takes away is made up for by further images of the same person, so that both counts stay; only where a person has too few that
    passed, the first of the others complete the row.
    """
    chosen, short = [], 0
    for identity in range(identities):
        rows = np.flatnonzero(faces.identity_N == identity)
        order = rows[np.argsort(~kept_N[rows], kind="stable")][:per_identity]
        short += int((~kept_N[order]).sum())
        chosen.append((identity, order))
    return people(faces, chosen), short


def score_of(faces: Faces, recipe: RecogniserRecipe, folder: Path, images: Path = DATA / "lfw_folds7_8.zip", pairs: Path = DATA / "lfw_folds7_8_pairs.txt") -> dict[str, float]:
    """Train a recogniser on the faces and return its figures on the real pairs; a training that was cut short goes on."""
    path = train_recogniser(recipe, replace(faces, failed=()), folder)
    summary = score_pairs(load_embedder(str(path)), images, pairs, flip=True).summary()
    return {key: value for key, value in summary.items() if isinstance(value, float)}


def gap(real: float | np.ndarray, minted: float | np.ndarray) -> float | np.ndarray:
    """GAP = (real - minted) / minted, as FRCSyn has it."""
    return (np.asarray(real) - np.asarray(minted)) / np.asarray(minted)
