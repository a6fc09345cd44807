"""All-pairs similarity histogram against the bare matrix product of the same tiles, interleaved, best of several; one thread.

Run `python benchmarks/pairs.py` in the repository root; it writes benchmarks/results_pairs.json. Goal: at most 1.2 times the product, for 512-d
embeddings and for the 128-d ones of dlib, whose product is four times cheaper.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from facefoundry.core.files import write_json
from facefoundry.identity.pairs import pair_histogram, tiles

GOAL = 1.2
ROUNDS = 5


def measure(rows: int, dim: int) -> dict[str, float]:
    """Time both on `rows` random unit embeddings with 8 rows an identity; returns seconds, ns a pair and their ratio."""
    rng = np.random.default_rng(0)
    embed_ND = rng.standard_normal((rows, dim)).astype(np.float32)
    embed_ND /= np.linalg.norm(embed_ND, axis=1, keepdims=True)
    identity_N = np.arange(rows) // 8
    pair_histogram(embed_ND[:64], identity_N[:64])
    product, histogram = [], []
    for _ in range(ROUNDS):  # interleaved: whatever else the machine does meets both
        product.append(_seconds(lambda: _bare_product(embed_ND)))
        histogram.append(_seconds(lambda: pair_histogram(embed_ND, identity_N)))
    pairs = rows * (rows - 1) / 2
    return {
        "rows": rows,
        "dim": dim,
        "product_s": min(product),
        "histogram_s": min(histogram),
        "product_ns_per_pair": min(product) / pairs * 1e9,
        "histogram_ns_per_pair": min(histogram) / pairs * 1e9,
        "ratio": min(histogram) / min(product),
    }


def main() -> None:
    """Measure 512-d and 128-d embeddings and write the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    results = [measure(16384, 512), measure(16384, 128)]
    for result in results:
        logging.info("%s", {key: round(value, 3) for key, value in result.items()})
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "numpy": np.__version__, "threads": 1}
    passed = all(result["ratio"] <= GOAL for result in results)
    write_json(Path(__file__).parent / "results_pairs.json", {"goal": GOAL, "rounds": ROUNDS, "passed": passed, "machine": machine, "results": results})


def _bare_product(embed_ND: np.ndarray) -> None:
    for _ in tiles(embed_ND):
        pass


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
