"""SDD-FIQA labels of a million embeddings: time over the bare matrix product, memory, and the published loop beside it, in one run on one thread.

Run `python benchmarks/quality.py` in the repository root (1 GB on disk for 10^6 x 512 float16, removed again); `--n 100000` for a quick look. It
writes benchmarks/results_quality.json. Goals: 120 s beside the product, 25 times the published loop, Spearman >= 0.99 against the exact labels, and
memory from which 10^7 rows stay below 8 GiB.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr, wasserstein_distance

from facefoundry.core.files import write_json
from facefoundry.quality.sdd_fiqa import sdd_fiqa

GOALS = {"seconds_beside_product": 120.0, "times_published_loop": 25.0, "spearman": 0.99, "gib_at_1e7": 8.0}
PER_IDENTITY, DRAWS, ROUNDS = 8, 24, 12
BLOCK = 4096


def faces(path: Path, rows: int, dim: int) -> np.ndarray:
    """Write unit float16 rows to `path` and return them as a memory map: people drawn on the sphere, images around them at varying distance."""
    out_ND = np.lib.format.open_memmap(path, "w+", np.float16, (rows, dim))
    rng = np.random.default_rng(0)
    for begin in range(0, rows, BLOCK):
        size = min(BLOCK, rows - begin)
        centre_ND = rng.standard_normal((-(-size // PER_IDENTITY), dim), np.float32).repeat(PER_IDENTITY, 0)[:size]
        row_ND = centre_ND + rng.uniform(0.2, 2.0, (size, 1)).astype(np.float32) * rng.standard_normal((size, dim), np.float32)
        out_ND[begin : begin + size] = row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True)
    out_ND.flush()
    del out_ND
    return np.load(path, mmap_mode="r")


def published_loop(embed_ND: np.ndarray, identity_N: np.ndarray, images: int) -> float:
    """Seconds an image of the published way, pair by pair in Python, spared its list scans: identities are indexed, SciPy does W1."""
    rng = np.random.default_rng(1)
    members = {identity: np.flatnonzero(identity_N == identity) for identity in np.unique(identity_N[:images])}
    begin = time.process_time()
    for row in range(images):
        own = members[identity_N[row]]
        others = own[own != row]
        for _ in range(ROUNDS):
            positives = rng.permutation(others)[:DRAWS]
            negatives: list[int] = []
            while len(negatives) < DRAWS:
                pick = int(rng.integers(len(embed_ND)))
                if identity_N[pick] != identity_N[row] and pick not in negatives:
                    negatives.append(pick)
            wasserstein_distance([float(embed_ND[row] @ embed_ND[k]) for k in positives], [float(embed_ND[row] @ embed_ND[k]) for k in negatives])
    return (time.process_time() - begin) / images


def bare_product(embed_ND: np.ndarray, pool: int) -> None:
    """The arithmetic alone: each block of rows, as float32, times the pool."""
    pooled_DP, out_RP = np.asarray(embed_ND[:pool], np.float32).T, np.empty((BLOCK, pool), np.float32)
    row_RD = np.asarray(embed_ND[:BLOCK], np.float32)
    for begin in range(0, len(embed_ND), BLOCK):
        size = min(BLOCK, len(embed_ND) - begin)
        np.matmul(row_RD[:size], pooled_DP, out=out_RP[:size])


@contextmanager
def memory() -> Iterator[dict[str, float]]:
    """Sample this process's own (anonymous) memory; mapped file pages are the system's to drop and are left out."""
    found, done = {"before": _anonymous_gib(), "peak": 0.0}, threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            found["peak"] = max(found["peak"], _anonymous_gib())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _anonymous_gib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 2**20


def _seconds(call: Callable[[], object]) -> tuple[float, object]:
    begin = time.process_time()
    value = call()
    return time.process_time() - begin, value


def agreement(rows: int, dim: int, folder: Path) -> dict[str, float]:
    """Spearman of the other modes with the exact labels."""
    embed_ND, identity_N = np.asarray(faces(folder / "small.npy", rows, dim), np.float32), np.arange(rows) // PER_IDENTITY
    exact_N = sdd_fiqa(embed_ND, identity_N, mode="exact")
    others = {"pool 1024": {"mode": "pool"}, "pool 288": {"mode": "pool", "pool": 288}, "published": {}, "per_round": {"mode": "per_round"}}
    return {name: float(spearmanr(exact_N, sdd_fiqa(embed_ND, identity_N, **settings)).statistic) for name, settings in others.items()}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--pool", type=int, default=1024)
    parser.add_argument("--loop-images", type=int, default=100)
    parser.add_argument("--exact-rows", type=int, default=16_000)
    parser.add_argument("--work", type=Path, help="where the memory map goes; a temporary folder without")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_quality.json"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        embed_ND, identity_N = faces(folder / "rows.npy", options.n, options.dim), np.arange(options.n) // PER_IDENTITY
        for mode in ("pool", "published"):
            sdd_fiqa(np.asarray(embed_ND[:4000]), identity_N[:4000], mode=mode)  # compile
        product_s, _ = _seconds(lambda: bare_product(embed_ND, options.pool))
        with memory() as used:
            pool_s, label_N = _seconds(lambda: sdd_fiqa(embed_ND, identity_N, mode="pool", pool=options.pool))
        again_N = sdd_fiqa(embed_ND, identity_N, mode="pool", pool=options.pool) if options.n <= 200_000 else label_N
        in_memory_ND = np.asarray(embed_ND[: min(options.n, 200_000)], np.float32)
        loop_s = published_loop(in_memory_ND, identity_N, options.loop_images)
        drawn_s, _ = _seconds(lambda: sdd_fiqa(in_memory_ND, identity_N[: len(in_memory_ND)]))
        spearman = agreement(options.exact_rows, options.dim, folder)
    gib = used["peak"] - used["before"]
    result = {
        "rows": options.n, "dim": options.dim, "pool": options.pool, "product_s": product_s, "pool_s": pool_s, "seconds_beside_product": pool_s - product_s,
        "loop_us_per_image": loop_s * 1e6, "loop_images_timed": options.loop_images, "loop_s_for_all_rows": loop_s * options.n, "times_published_loop": loop_s * options.n / pool_s,
        "compiled_published_us_per_image": drawn_s / len(in_memory_ND) * 1e6, "spearman": spearman, "deterministic": bool(np.array_equal(label_N, again_N)),
        "own_memory_gib": gib, "gib_at_1e7": gib * 1e7 / options.n,
        "machine": {"processor": platform.processor() or platform.machine(), "numpy": np.__version__, "threads": 1},
        "goals": GOALS,
    }  # fmt: skip
    result["passed"] = bool(
        result["seconds_beside_product"] <= GOALS["seconds_beside_product"] and result["times_published_loop"] >= GOALS["times_published_loop"]
        and spearman["pool 1024"] >= GOALS["spearman"] and result["gib_at_1e7"] <= GOALS["gib_at_1e7"]
    )  # fmt: skip
    logging.info("%s", result)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
