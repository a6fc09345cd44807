"""EyeSeg: does its uncertainty know a wrong pixel better than softmax entropy and Monte-Carlo dropout, and does weighting by it help gaze?

Three small networks a seed on the same rendered eyes: EyeSeg, the same trunk with softmax, and that with dropout (averaged over passes at the test). Judged on
other rendered eyes and, never having seen one, on photographs. A unit is a few pictures in a row, or one eye seen in several frames.

    python benchmarks/claims/eyeseg.py --photos eyes/visible [--infrared eyes/infrared] [--work DIR]     (about 12 minutes of one core)

Axes: N pictures, H W pixels, U units, M frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from evidence import Effect, effect, write_claim
from facefoundry.consumers.segmentation.eye_data import Eyes, eyes_in, grey, rendered_eyes
from facefoundry.consumers.segmentation.eyeseg import EyeSeg
from facefoundry.consumers.segmentation.gaze import angle_between, fuse_gaze, gaze_of
from facefoundry.consumers.segmentation.metrics import error_auroc, segmentation_scores, sparsification
from facefoundry.consumers.segmentation.network import EyeSegNet, PlainSegNet
from facefoundry.consumers.segmentation.train import EyeSegObjective, EyeSegRecipe, PlainObjective, train_on
from facefoundry.core.progress import track
from facefoundry.core.seeds import derive_seed, numpy_rng
from facefoundry.core.training import fresh
from facefoundry.styles_3dmm.eye_camera import smear
from facefoundry.styles_3dmm.eyes import render_eyes

DROPOUT, PASSES, GROUP, FRAMES = 0.2, 8, 6, 6
METHODS = ("eyeseg", "entropy", "dropout")
BLURS_PX = (0, 3, 6, 12)

Seen = tuple[np.ndarray, np.ndarray]
"""Labels and uncertainties a pixel, (N, H, W) each."""


def main() -> None:
    options = _options()
    recipe = EyeSegRecipe(size_px=(96, 128), loop={"optimiser": "adamw", "lr": 3e-3, "batch": 16, "steps": options.steps, "weight_decay": 0.01, "warmup": 0.03, "checkpoint_every": 10_000})
    learnt = rendered_eyes(options.eyes, 0, size_px=recipe.size_px)
    tests = {"rendered": rendered_eyes(options.test_eyes, 1, size_px=recipe.size_px), "photographs": eyes_in(options.photos, size_px=recipe.size_px)}
    if options.infrared:
        infrared = eyes_in(options.infrared, size_px=recipe.size_px)
        tests["infrared photographs"] = infrared.rows(np.arange(0, len(infrared), max(1, len(infrared) // options.test_eyes)))
    films = {name: film(options.films, name, recipe.size_px) for name in ("blur", "lids")}
    figures = [_of_seed(recipe, seed, learnt, tests, films, options.work / f"{seed}-{options.steps}-{options.eyes}") for seed in range(options.seeds)]
    _write(options, figures, tests)


def _of_seed(recipe: EyeSegRecipe, seed: int, learnt: Eyes, tests: dict[str, Eyes], films: dict[str, tuple], work: Path) -> dict[tuple, np.ndarray]:
    """Train the three networks of a seed and return what they reach, by (figure, test, method)."""
    recipe = recipe.model_copy(update={"loop": recipe.loop.model_copy(update={"seed": seed})})
    networks = {
        "eyeseg": fresh(lambda: EyeSegNet(recipe.widths, recipe.dim), seed, "eyeseg"), "entropy": fresh(lambda: PlainSegNet(recipe.widths), seed, "eyeseg"),
        "dropout": fresh(lambda: PlainSegNet(recipe.widths, dropout=DROPOUT), seed, "eyeseg"),
    }  # fmt: skip
    for name, network in networks.items():
        train_on(recipe, (EyeSegObjective if name == "eyeseg" else PlainObjective)(network), [(learnt, 1.0)], work / name)
    see = {"eyeseg": EyeSeg(networks["eyeseg"], recipe.size_px), "entropy": networks["entropy"].eval(), "dropout": networks["dropout"].eval()}
    found: dict[tuple, np.ndarray] = {}
    for test, eyes in tests.items():
        for name in METHODS:
            found |= {(figure, test, name): value for figure, value in _judge(seen_by(name, see[name], eyes.grey_NHW), eyes, binary="infrared" in test).items()}
    for kind, (grey_UMHW, gaze_U2) in films.items():
        found |= {("gaze", kind, name): value for name, value in _gaze_errors(see, grey_UMHW, gaze_U2).items()}
    found["rise", "blur", "eyeseg"] = _rise(see["eyeseg"], tests["rendered"])
    return found


@torch.no_grad()
def seen_by(name: str, network: EyeSeg | PlainSegNet, grey_NHW: np.ndarray) -> Seen:
    """Segment with one of the methods; uncertainty: u = 1 - A_d(κ), entropy of the softmax, or entropy of the mean over dropout's passes."""
    labels, unsure = [], []
    for start in range(0, len(grey_NHW), 16):
        part_NHW = grey_NHW[start : start + 16]
        if isinstance(network, EyeSeg):
            parts = network(part_NHW)
            labels.append(parts.label_BHW.numpy())
            unsure.append(parts.uncertainty_BHW.numpy())
            continue
        probability_BKHW = _mean_softmax(network, torch.from_numpy(part_NHW.astype(np.float32))[:, None] / 127.5 - 1.0, PASSES if name == "dropout" else 0)
        labels.append(probability_BKHW.argmax(1).numpy().astype(np.uint8))
        unsure.append(torch.special.entr(probability_BKHW).sum(1).numpy())
    return np.concatenate(labels), np.concatenate(unsure)


def _mean_softmax(network: PlainSegNet, image_B1HW: Tensor, passes: int) -> Tensor:
    """Softmax; with passes, its mean while dropout alone works as in training."""
    if not passes:
        return network(image_B1HW).softmax(1)
    network.trunk.dropout.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean = torch.stack([network(image_B1HW).softmax(1) for _ in range(passes)]).mean(0)
    network.trunk.dropout.eval()
    return mean


def _judge(seen: Seen, eyes: Eyes, *, binary: bool) -> dict[str, np.ndarray]:
    """Figures by group of pictures; binary = the photographs' masks know the iris alone."""
    label_NHW, unsure_NHW = seen
    predicted, truth = (label_NHW == 2, eyes.label_NHW > 0) if binary else (label_NHW, eyes.label_NHW)
    wrong_NHW = predicted != truth
    groups = [slice(start, start + GROUP) for start in range(0, len(eyes) - GROUP + 1, GROUP)]
    scores = [segmentation_scores(predicted[group].astype(np.uint8), truth[group].astype(np.uint8), 2 if binary else 4) for group in groups]
    error_N = wrong_NHW.mean((1, 2))
    score_N = np.array([unsure_HW[label_HW > 0].mean() if (label_HW > 0).any() else unsure_HW.mean() for unsure_HW, label_HW in zip(unsure_NHW, label_NHW)])
    return {
        "auroc": np.array([error_auroc(unsure_NHW[group], wrong_NHW[group]) for group in groups]), "ause": np.array([sparsification(unsure_NHW[group], wrong_NHW[group])[2] for group in groups]),
        "miou": np.array([score["miou"] for score in scores]), "e1": np.array([score["e1"] for score in scores]), "spearman": np.array([spearmanr(score_N, error_N).statistic]),
    }  # fmt: skip


def film(count: int, kind: str, size_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return eyes in several frames, uint8 (U, M, H, W), each frame moved (blur) or covered by the lid (lids) by another amount, and their gaze (U, 2)."""
    frames, gazes = [], []
    for number in track(range(count), f"filming {kind}"):
        eye = render_eyes([derive_seed(2, number, "film")], size_px=size_px, augment=False)
        rng = numpy_rng(3, number, kind)
        amount_M = np.linspace(0.0, 1.0, FRAMES) ** 1.5
        one_HW = grey(eye.image_BHWC)[0]
        worn = [moved(one_HW, 0.14 * amount * size_px[1], rng) if kind == "blur" else covered(one_HW, eye.label_BHW[0], 0.9 * amount, rng) for amount in amount_M]
        frames.append(np.stack(worn))
        gazes.append(eye.gaze_deg_B2[0])
    return np.stack(frames), np.stack(gazes)


def moved(grey_HW: np.ndarray, length_px: float, rng: np.random.Generator) -> np.ndarray:
    """Motion blur along a drawn direction, then the sensor's noise."""
    seen_HW = smear(grey_HW[..., None].astype(np.float32), length_px, float(rng.uniform(0, np.pi)))[..., 0] if length_px >= 1 else grey_HW.astype(np.float32)
    return np.clip(seen_HW + rng.normal(0, 3.0, grey_HW.shape), 0, 255).astype(np.uint8)


def covered(grey_HW: np.ndarray, label_HW: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A lid of the skin's tone, arched, down over a share of the opening's height."""
    rows, columns = np.nonzero(label_HW)
    top, height, middle, half = rows.min(), np.ptp(rows) + 1, columns.mean(), np.ptp(columns) / 2 + 1
    across_W = ((np.arange(grey_HW.shape[1]) - middle) / half) * rng.uniform(0.7, 1.1)
    edge_W = top - 3 + share * (height + 3) * (1 - 0.35 * across_W**2)
    skin_HW = np.median(grey_HW[label_HW == 0]) * rng.uniform(0.85, 1.1) + rng.normal(0, 4.0, grey_HW.shape)
    is_lid_HW = (np.arange(grey_HW.shape[0])[:, None] < edge_W) & (np.abs(across_W) < 1.3) & (np.arange(grey_HW.shape[0])[:, None] > top - 8)
    return np.clip(np.where(is_lid_HW, skin_HW, grey_HW + rng.normal(0, 3.0, grey_HW.shape)), 0, 255).astype(np.uint8)


def _gaze_errors(see: dict, grey_UMHW: np.ndarray, gaze_U2: np.ndarray) -> dict[str, np.ndarray]:
    """Degrees between the true gaze and: frames weighted by 1 / s_unc, their plain mean, and the plain mean of the softmax network's."""
    count, frames = grey_UMHW.shape[:2]
    label, unsure = seen_by("eyeseg", see["eyeseg"], grey_UMHW.reshape(-1, *grey_UMHW.shape[2:]))
    plain, _ = seen_by("entropy", see["entropy"], grey_UMHW.reshape(-1, *grey_UMHW.shape[2:]))
    eye = label > 0
    score_UM = np.array([row[inside].mean() if inside.any() else row.mean() for row, inside in zip(unsure, eye)]).reshape(count, frames)
    guesses = {name: [gaze_of(one) for one in labels] for name, labels in (("eyeseg", label), ("plain", plain))}
    error: dict[str, list[float]] = {"weighted": [], "mean": [], "softmax mean": []}
    for unit in range(count):
        for name, source, weight_M in (("weighted", "eyeseg", score_UM[unit]), ("mean", "eyeseg", np.ones(frames)), ("softmax mean", "plain", np.ones(frames))):
            rows = [(guess, weight) for guess, weight in zip(guesses[source][unit * frames : (unit + 1) * frames], weight_M) if guess is not None]
            fused_2 = fuse_gaze(np.array([guess for guess, _ in rows]), np.array([weight for _, weight in rows])) if rows else np.zeros(2)
            error[name].append(float(angle_between(fused_2[None], gaze_U2[unit][None])[0]))
    return {name: np.array(values) for name, values in error.items()}


def _rise(see: EyeSeg, eyes: Eyes) -> np.ndarray:
    """s_unc of some eyes at each length of motion blur, (lengths, N)."""
    some = eyes.grey_NHW[:60]
    return np.stack([see(np.stack([moved(one, length, numpy_rng(4, number)) for number, one in enumerate(some)])).score_B.numpy() for length in BLURS_PX])


def _write(options: argparse.Namespace, figures: list[dict], tests: dict[str, Eyes]) -> None:
    names = {"auroc": "AUROC of wrong pixels", "ause": "area of the sparsification error", "gaze": "gaze error in degrees", "miou": "mIoU", "e1": "E1", "spearman": "rank correlation of a picture's uncertainty and its error"}

    def compared(figure: str, test: str, before: str, after: str, better: str) -> Effect:
        # A group without a wrong pixel has no AUROC; it is left out everywhere, for pairs must stay pairs.
        kept_U = np.isfinite([seed[figure, test, name] for seed in figures for name in (before, after)]).all(0)
        rows = ([seed[figure, test, name][kept_U] for seed in figures] for name in (before, after))
        return effect(f"{test}: {names[figure]}, {after} against {before}", *rows, better=better)

    known = [compared("auroc", test, rival, "eyeseg", "higher") for test in ("rendered", "photographs") for rival in ("entropy", "dropout")]
    fused = [compared("gaze", kind, "mean", "weighted", "lower") for kind in ("blur", "lids")]
    others = [compared("ause", test, rival, "eyeseg", "lower") for test in ("rendered", "photographs") for rival in ("entropy", "dropout")]
    others += [compared("gaze", kind, "softmax mean", "weighted", "lower") for kind in ("blur", "lids")]
    others += [compared(figure, test, "entropy", "eyeseg", better) for test in tests for figure, better in (("miou", "higher"), ("e1", "lower"))]
    others += [compared("spearman", test, "entropy", "eyeseg", "higher") for test in ("rendered", "photographs")]
    rise = np.stack([seed["rise", "blur", "eyeseg"] for seed in figures])
    others.append(effect(f"rendered: s_unc at {BLURS_PX[-1]} px of motion against none", rise[:, 0], rise[:, -1]))
    gap = {test: {name: round(float(np.mean([np.nanmean(seed["miou", test, name]) for seed in figures])), 3) for name in METHODS} for test in tests}
    write_claim(
        "eyeseg", method="EyeSeg (IJCAI 2025)",
        claim="The learned concentration predicts wrong pixels better than softmax entropy and Monte-Carlo dropout, and frames weighted by it give a better gaze than their mean.",
        shown=all(row.holds for row in (*known, *fused)), effects=[*known, *fused, *others],
        notes=[
            "Shown = every interval of 'AUROC' above 0 and of 'weighted against mean' below 0 (the first six rows).",
            f"{options.seeds} seeds × 3 networks of 0.5 M parameters, {options.steps} steps × 16 on {options.eyes} rendered eyes of 96x128 px; no photograph is learnt from. Units: {GROUP} pictures in a row; for gaze one of {options.films} eyes in {FRAMES} frames.",
            f"Dropout {DROPOUT} of whole channels before the last layer, {PASSES} passes; entropy of the softmax, or of its mean over the passes.",
            f"Domain gap, mIoU: {'; '.join(f'{test} ' + ', '.join(f'{name} {value}' for name, value in row.items()) for test, row in gap.items())}. Infrared masks know the iris alone (background and iris counted).",
            f"Mean s_unc after motion blur of {BLURS_PX} px: {', '.join(f'{value:.4f}' for value in rise.mean((0, 2)))}.",
            "The method is a reconstruction: the paper's equations are not public (consumers.md §6).",
        ],
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--infrared", type=Path, help="the same, masks of the iris alone (1)")
    parser.add_argument("--work", type=Path, default=Path("runs/claim-eyeseg"))
    for name, value in (("seeds", 3), ("steps", 450), ("eyes", 1500), ("test-eyes", 240), ("films", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
