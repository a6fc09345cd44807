"""GloTok's claim: histogram relation learning and residual refinement make a tokenizer that reconstructs better, uses its book more evenly and generates better.

Run: `python benchmarks/claims/glotok.py --work runs/claims/glotok`. Three tokenizers a seed from the same first weights, rows and augmentation: GloTok, without
the histogram term, without the residual module; a small autoregressive model, a class the identity, over the tokens of each. Judged on faces of
other people. FID and perceptual distance are of mobilefacenet-small's features, which is also the perceptual term and the teacher: alike for all arms.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from evidence import DATA, HERE, Effect, effect, write_claim

from facefoundry.consumers.tokenizer.autoregressive import load_token_model, sample_faces
from facefoundry.consumers.tokenizer.autoregressive_train import tokens_of, train_token_model
from facefoundry.consumers.tokenizer.figures import features, measure
from facefoundry.consumers.tokenizer.glotok import load_glotok
from facefoundry.consumers.tokenizer.train import TokenizerRecipe, kept_teacher_book, train_tokenizer
from facefoundry.consumers.tokenizer.usage import density_uniformity, usage
from facefoundry.core.files import write_atomic
from facefoundry.core.images import to_uint8
from facefoundry.core.seeds import derive_seed, numpy_rng
from facefoundry.identity.sources import Faces, load_faces
from facefoundry.quality.frechet import fid

ARMS: dict[str, tuple[bool, bool]] = {"no histogram": (False, True), "no residual": (True, False), "GloTok": (True, True)}
"""With the histogram term, with the residual module."""
BASELINES = ("no histogram", "no residual")
BETTER = {"PSNR (dB)": "higher", "perceptual distance": "lower", "rFID": "lower", "semantic book, normalised entropy": "higher", "semantic book, Gini": "lower", "density variation": "lower", "gFID": "lower"}
SMALL = (
    "tokenizer.fold=8", "tokenizer.widths=[48, 96]", "tokenizer.visual=512", "weights.histogram_rows=128", "loop.checkpoint_every=100000", "model.loop.checkpoint_every=100000",
    "model.network.width=96", "model.network.layers=3", "model.loop.batch=32",
)  # fmt: skip
"""Laid over recipes/glotok-small.yaml: 7x7 tokens, so that nine trainings of tokenizer and model fit."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One arm, one seed: values a held-out face, bootstrap draws of the set's figures (S draws, the same faces in every arm)."""

    unit: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]


def arm(recipe: TokenizerRecipe, name: str, seed: int) -> TokenizerRecipe:
    """The recipe with or without the two parts, its seeds set."""
    histogram, residual = ARMS[name]
    weights = recipe.weights if histogram else recipe.weights.model_copy(update={"histogram": 0.0})
    model = recipe.model.model_copy(update={"loop": recipe.model.loop.model_copy(update={"seed": seed})})
    return recipe.model_copy(
        update={"tokenizer": recipe.tokenizer.model_copy(update={"residual": residual}), "weights": weights, "loop": recipe.loop.model_copy(update={"seed": seed}), "model": model}
    )


def trained(recipe: TokenizerRecipe, faces: Faces, folder: Path, book_KD: np.ndarray) -> tuple[Path, Path]:
    """Train what is not there yet; return the files of tokenizer and token model."""
    paths = folder / "glotok.safetensors", folder / "model" / "tokens.safetensors"
    if not paths[0].is_file():
        train_tokenizer(recipe, faces.image_NHWC, folder, book_KD=book_KD)
    if not paths[1].is_file():
        train_token_model(recipe.model, paths[0], faces.image_NHWC, faces.identity_N, folder / "model")
    return paths


def generated(paths: tuple[Path, Path], label_N: np.ndarray, seed: int, top_k: int, keep: Path) -> np.ndarray:
    """Faces drawn for classes, uint8, kept on disk."""
    if keep.is_file():
        return np.load(keep)
    seeds = [derive_seed(seed, "drawn", number) for number in range(len(label_N))]
    image_NHWC = to_uint8(sample_faces(load_token_model(paths[1])[0], load_glotok(paths[0])[0], label_N.tolist(), seeds, top_k=top_k))
    write_atomic(keep, lambda temporary: np.save(open(temporary, "wb"), image_NHWC))
    return image_NHWC


@torch.inference_mode()
def judged(paths: tuple[Path, Path], held_NHWC: np.ndarray, drawn_NHWC: np.ndarray, draws: int, seed: int) -> Figures:
    """Figures of one tokenizer and its model on held-out faces; the bootstrap draws depend on the seed alone, so that arms are paired."""
    tokenizer, _ = load_glotok(paths[0])
    found = measure(lambda image_BCHW: tokenizer.decode(tokenizer.encode(image_BCHW)), held_NHWC)
    token_N2HW, drawn_NF = tokens_of(tokenizer, held_NHWC), features(drawn_NHWC)
    code_NDHW = torch.cat([tokenizer.encode(torch.from_numpy(held_NHWC[begin : begin + 64]).permute(0, 3, 1, 2) / 127.5 - 1) for begin in range(0, len(held_NHWC), 64)])
    latent_NPD = code_NDHW[:, : tokenizer.config.code_dim].movedim(1, -1).flatten(1, 2).numpy()
    values: dict[str, list[float]] = {name: [] for name in ("rFID", "semantic book, normalised entropy", "semantic book, Gini", "density variation", "gFID")}
    for draw in range(draws):
        rng = numpy_rng(seed, "faces", draw)
        rows, other = rng.integers(0, len(held_NHWC), len(held_NHWC)), rng.integers(0, len(drawn_NF), len(drawn_NF))
        use = usage(token_N2HW[rows, 0], tokenizer.config.semantic)
        values["rFID"].append(fid(found.real_NF[rows], found.found_NF[rows]))
        values["gFID"].append(fid(found.real_NF[rows], drawn_NF[other]))
        values["semantic book, normalised entropy"].append(use.entropy)
        values["semantic book, Gini"].append(use.gini)
        values["density variation"].append(density_uniformity(latent_NPD[rows].reshape(-1, latent_NPD.shape[-1]), sample=600, seed=draw)["variation"])
    return Figures(unit={"PSNR (dB)": found.psnr_db, "perceptual distance": found.perceptual}, drawn={name: np.array(found_S) for name, found_S in values.items()})


def set_effect(name: str, baseline_SD: np.ndarray, method_SD: np.ndarray, better: str) -> Effect:
    """`effect` for figures of whole sets: each seed's draws are the spread over faces, and seeds are resampled around them."""
    gap_SD, rng = method_SD - baseline_SD, numpy_rng("sets", name)
    seeds, draws = gap_SD.shape
    found = [gap_SD[rng.integers(0, seeds, seeds), rng.integers(0, draws, seeds)].mean() for _ in range(4000)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Effect(name=name, baseline=float(baseline_SD.mean()), method=float(method_SD.mean()), difference=float(gap_SD.mean()), low=float(low), high=float(high), seeds=seeds, better=better)


def compared(figures: dict[tuple[str, int], Figures], baseline: str, seeds: int) -> list[Effect]:
    """All figures of GloTok against one baseline."""
    rows = []
    for key, better in BETTER.items():
        name = f"GloTok against {baseline}: {key}"
        of = "unit" if key in figures[baseline, 0].unit else "drawn"
        both = [np.stack([getattr(figures[arm_name, seed], of)[key] for seed in range(seeds)]) for arm_name in (baseline, "GloTok")]
        rows.append(effect(name, *both, better=better) if of == "unit" else set_effect(name, *both, better))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "train112.zip")
    parser.add_argument("--work", type=Path, default=Path("runs/claims/glotok"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--model-steps", type=int, default=120)
    parser.add_argument("--people", type=int, default=100, help="identities to train on, those with the most faces; the classes of the model")
    parser.add_argument("--held", type=int, default=400, help="faces of other people, and faces drawn for gFID")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--top-k", type=int, default=100)
    options = parser.parse_args()
    recipe = TokenizerRecipe.load(HERE.parent.parent / "recipes" / "glotok-small.yaml", [*SMALL, f"loop.steps={options.steps}", f"model.loop.steps={options.model_steps}"])
    faces, held_NHWC = split(load_faces(options.data), options.people, options.held)
    book_KD = kept_teacher_book(recipe, faces.image_NHWC, options.work)
    figures = {}
    for name in ARMS:
        for seed in range(options.seeds):
            folder = options.work / f"{name.replace(' ', '-')}-{seed}"
            paths = trained(arm(recipe, name, seed), faces, folder, book_KD)
            label_N = faces.identity_N[numpy_rng(seed, "classes").integers(0, len(faces), options.held)]  # as often as in the data
            figures[name, seed] = judged(paths, held_NHWC, generated(paths, label_N, seed, options.top_k, folder / "drawn.npy"), options.draws, seed)
    rows = {baseline: compared(figures, baseline, options.seeds) for baseline in BASELINES}
    decisive = ("PSNR (dB)", "rFID", "gFID", "density variation")
    shown = all(row.holds for baseline in BASELINES for row in rows[baseline] if row.name.split(": ")[1] in decisive)
    holding = [row.name for found in rows.values() for row in found if row.holds]
    write_claim(
        "glotok", method="GloTok (AAAI 2026)",
        claim="The histogram relation loss and the residual module each give better reconstruction (PSNR, rFID), more evenly spread latents and better generation (gFID) than the same tokenizer without them.",
        shown=shown, effects=[row for found in rows.values() for row in found],
        notes=[
            f"Shown = against 'no histogram' and against 'no residual' the intervals of {', '.join(decisive)} on the claimed side.",
            f"Hold: {'; '.join(holding) or 'none'}.",
            f"{options.seeds} seeds; tokenizer {options.steps} steps of {recipe.loop.batch}, 7x7 tokens of two books (512 + 512); token model {options.model_steps} steps of {recipe.model.loop.batch} on {len(faces)} faces of {options.people} people; {len(held_NHWC)} held-out faces of others, as many drawn.",
            f"FID: {len(held_NHWC)} faces, features of mobilefacenet-small; biased by the number, compare within this table. Sets resampled {options.draws} times. Density: Gaussian kernel, Scott's bandwidth, on the plane of the two main axes of 600 latents.",
            "The paper trained 40 to 150 epochs of ImageNet with books of 4,096 and 12,288; parts of the method are a reconstruction (consumers.md §7).",
        ],
    )  # fmt: skip


def split(faces: Faces, people: int, held: int) -> tuple[Faces, np.ndarray]:
    """The faces of the people with the most, and some faces of the others, drawn by a seed."""
    order_I = np.argsort(-np.bincount(faces.identity_N), kind="stable")
    mine_I = np.sort(order_I[:people])
    mine_N = np.isin(faces.identity_N, mine_I)
    rest = np.flatnonzero(~mine_N)
    chosen = np.sort(numpy_rng("held").permutation(rest)[:held])
    kept = np.flatnonzero(mine_N)
    label_N = np.searchsorted(mine_I, faces.identity_N[kept]).astype(np.int32)
    names, paths = tuple(faces.names[i] for i in mine_I), tuple(faces.paths[row] for row in kept)
    return Faces(image_NHWC=faces.image_NHWC[kept], identity_N=label_N, names=names, paths=paths, failed=()), faces.image_NHWC[chosen]


if __name__ == "__main__":
    main()
