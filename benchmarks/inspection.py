"""All embedding-based metrics of a data set of 10,000 people × 50 images (512 numbers or 128), synthetic embeddings, against the floor of its matrix products.

Run `python benchmarks/inspection.py [--n 500000] [--dim 128] [--threads 2]` in the repository root; it writes benchmarks/results_inspection.json. Goal: at most a tenth of the
time the same cores need to embed as many images with the bundled recogniser, which is measured beside it.

The floor counts what must be multiplied at the measured rate of a large product: the pairs of the histogram's images, all centres with all centres, images with real
centres, and the Gram matrix of the moments.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
from pathlib import Path

import numba
import numpy as np
import torch

from facefoundry.core.files import write_json
from facefoundry.quality.inspect import InspectSettings, inspect_embeddings, summary
from facefoundry.quality.pair_figures import ALL_PAIRS_UP_TO

SHARE, PER_IDENTITY, REAL = 0.1, 50, 4200


def synthetic(images: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of noisy people, their identities, and perceptual hashes in which one image in a hundred repeats another."""
    rng = np.random.default_rng(seed)
    identity_N = np.arange(images) // PER_IDENTITY
    centre_ID = rng.standard_normal((int(identity_N[-1]) + 1, dim), np.float32)
    embed_ND = np.empty((images, dim), np.float32)
    for begin in range(0, images, 65_536):
        part = centre_ID[identity_N[begin : begin + 65_536]]
        embed_ND[begin : begin + len(part)] = part + 0.8 * rng.standard_normal(part.shape, np.float32)
        embed_ND[begin : begin + len(part)] /= np.linalg.norm(embed_ND[begin : begin + len(part)], axis=1, keepdims=True)
    hash_N = rng.integers(0, 2**63, images, dtype=np.uint64)
    twice = rng.integers(images - 1, size=images // 100)
    hash_N[twice + 1], embed_ND[twice + 1] = hash_N[twice], embed_ND[twice]
    return embed_ND, identity_N, hash_N


def embedding_rate(threads: int) -> float:
    """Images a second of the bundled recogniser on as many threads, decoding left out (which favours the goal's harder side)."""
    from facefoundry.recognition.embedder import MobileFaceNetSmall

    embedder, image_BCHW = MobileFaceNetSmall(), torch.rand(64, 3, 112, 112) * 2 - 1
    torch.set_num_threads(threads)
    with torch.inference_mode():
        embedder(image_BCHW)
        begin_s = time.perf_counter()
        for _ in range(5):
            embedder(image_BCHW)
    return 5 * 64 / (time.perf_counter() - begin_s)


def floor_s(images: int, dim: int) -> float:
    """Seconds of the products alone at the rate of a 2048 x 2048 one."""
    left, right = torch.randn(2048, dim), torch.randn(dim, 2048)
    left @ right
    begin_s = time.perf_counter()
    for _ in range(20):
        left @ right
    pair_s = (time.perf_counter() - begin_s) / (20 * 2048 * 2048)
    people, counted = images / PER_IDENTITY, min(images, ALL_PAIRS_UP_TO)
    return pair_s * (counted**2 / 2 + 1.5 * people**2 + (images + people) * REAL + images * dim)


def main() -> None:
    """Measure and write the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    numba.set_num_threads(min(chosen.threads, numba.config.NUMBA_NUM_THREADS))
    rate = embedding_rate(chosen.threads)
    embed_ND, identity_N, hash_N = synthetic(chosen.n, chosen.dim)
    real_RD = synthetic(REAL * PER_IDENTITY, chosen.dim, seed=1)[0][::PER_IDENTITY]
    inspect_embeddings(embed_ND[:500], identity_N[:500], InspectSettings(draws=2), hash_N=hash_N[:500], real_RD=real_RD)  # compile
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin_s = time.perf_counter()
    found = inspect_embeddings(embed_ND, identity_N, hash_N=hash_N, real_RD=real_RD)
    spent_s = time.perf_counter() - begin_s
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "images": chosen.n, "dim": chosen.dim, "threads": chosen.threads, "seconds": spent_s, "floor_s": floor_s(chosen.n, chosen.dim), "embedding_images_per_s": rate, "embedding_s": chosen.n / rate,
        "share_of_embedding": spent_s * rate / chosen.n, "goal": SHARE, "passed": spent_s * rate / chosen.n <= SHARE, "embeddings_gib": embed_ND.nbytes / 2**30,
        "peak_beside_gib": (after - before) / 2**20, "duplicates": summary(found)["duplicates"],
    }  # fmt: skip
    logging.info("%s", {name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()})
    if not chosen.no_write:
        write_json(Path(__file__).parent / "results_inspection.json", result)


if __name__ == "__main__":
    main()
