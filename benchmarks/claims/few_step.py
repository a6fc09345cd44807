"""The few-step student's claim (issue 3): at least ten times the published procedure's speed, a recogniser trained on its data as good as on the full sampler's.

Run after `uiface.py`, with the same --work: its "full" sets are the baseline (same anchors, same seeds). Speed is measured here, in one process, interleaved:
the published procedure (fp32, every pass), the fast solver and the student, decoder included.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from evidence import accuracy_by_pair, effect, mint, people, write_claim
from figures import by_identity

from facefoundry.core.seeds import derive_seed
from facefoundry.generators.lcm import LCMConfig
from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler
from facefoundry.recognition.embedder import load_embedder

DEMO = {"t_max": 700, "guidance": 4.5, "rescale": 0.7}
CPU = torch.device("cpu")


def rates(rounds: int, batch: int) -> dict[str, float]:
    """Images a second of each sampler, the best of interleaved rounds."""
    makers = {
        "published procedure, fp32": UIFaceConfig(sampler=UIFaceSampler.published().model_copy(update=DEMO), precision="fp32").build(CPU),
        "published procedure, bf16": UIFaceConfig(sampler=UIFaceSampler.published().model_copy(update=DEMO)).build(CPU),
        "fast (unipc 12), bf16": UIFaceConfig(sampler=UIFaceSampler.fast().model_copy(update=DEMO)).build(CPU),
        "student, 8 passes": LCMConfig(steps=8, autoencoder="lcm-decoder").build(CPU),
        "student, 4 passes": LCMConfig(steps=4, autoencoder="lcm-decoder").build(CPU),
    }
    anchor_BD, best = people(batch, 0), dict.fromkeys(makers, 0.0)
    for _ in range(rounds):
        for name, maker in makers.items():
            begin_s = time.perf_counter()
            maker.generate(anchor_BD, list(range(batch)))
            best[name] = max(best[name], batch / (time.perf_counter() - begin_s))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identities", type=int, default=80)
    parser.add_argument("--per-identity", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--work", type=Path, default=Path("runs/claims/uiface"))
    options = parser.parse_args()
    judges = {"dlib": load_embedder("dlib")}
    student = LCMConfig(steps=4, autoencoder="lcm-decoder").build(CPU)
    figures, right = {}, {}
    for seed in range(options.seeds):
        anchor_ID = people(options.identities, derive_seed("claim", seed))
        for name, images in (
            ("full", np.load(options.work / f"full-{seed}.npy")),
            ("student", mint(student, anchor_ID, options.per_identity, seed, options.work / f"student-{seed}.npy")),
        ):
            figures[name, seed] = by_identity(images, anchor_ID, judges)
            right[name, seed] = accuracy_by_pair(images, options.per_identity, seed, options.work / f"recogniser-{name}-{seed}")
    pairs = [[right[name, seed] for seed in range(options.seeds)] for name in ("full", "student")]
    accuracy = effect("recogniser's accuracy", *pairs)
    by_seed = np.array(pairs[0]).mean(1)
    # Of the baseline's mean: spread between its seeds, and the pairs it is measured on.
    error = float(np.hypot(by_seed.std(ddof=1) / np.sqrt(options.seeds), np.sqrt(by_seed.mean() * (1 - by_seed.mean()) / len(pairs[0][0]))))
    keys = ("cosine to anchor", "separation (dlib)", "appearance distance", "yaw spread")
    rows = [effect(key, *([figures[name, seed][key] for seed in range(options.seeds)] for name in ("full", "student"))) for key in keys]
    speed = rates(options.rounds, options.batch)
    ratio = speed["student, 4 passes"] / speed["published procedure, fp32"]
    write_claim(
        "few_step", method="Few-step student (4 passes)",
        claim="At least 10 times the published procedure's images a second, with the recogniser trained on its data within one standard error of the full sampler's.",
        shown=ratio >= 10 and accuracy.difference >= -error, effects=[accuracy, *rows],
        notes=[
            f"Images a second, {torch.get_num_threads()} threads, batch {options.batch}, decoder included: " + "; ".join(f"{name} {value:.1f}" for name, value in speed.items()) + ".",
            f"Student against the published procedure: {ratio:.1f}× (fp32), {speed['student, 4 passes'] / speed['published procedure, bf16']:.1f}× (bf16). One standard error of the baseline's accuracy: {error:.4f}.",
            f"{options.seeds} seeds × {options.identities} identities × {options.per_identity} images; the baseline is `uiface.py`'s full sampler (its DDIM steps), from the same noise.",
        ],
    )


if __name__ == "__main__":
    main()
