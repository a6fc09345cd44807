"""Rendered faces a second and core, labels included: the generator alone, and with the encoding of image and labels as a job writes them.

Run `NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/rendered.py` in the repository root; it writes benchmarks/results_rendered.json. Goal: 200 faces a
second on two cores at 112 px, that is 100 a core (jobs put one worker on each core; they share nothing). Eyes: 20 a second at 320 × 240.
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
from facefoundry.core.images import encode_labels, encode_png, to_uint8
from facefoundry.generators.rendered import RenderedConfig
from facefoundry.styles_3dmm.eyes import render_eyes

GOAL_PER_S, EYE_GOAL_PER_S = 100, 20
COUNT, EYES, ROUNDS = 64, 12, 5


def main() -> None:
    """Measure and write the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    generator, rng = RenderedConfig().build(torch.device("cpu")), np.random.default_rng(0)
    anchor_BD = rng.normal(size=(COUNT, generator.anchor_dim)).astype(np.float32)
    anchor_BD /= np.linalg.norm(anchor_BD, axis=1, keepdims=True)

    def job() -> None:
        batch = generator.generate(anchor_BD, range(COUNT))
        for image_HWC, part_HW in zip(to_uint8(batch.image_BCHW), batch.parts):
            encode_png(image_HWC), encode_labels(part_HW)

    found = {
        "faces_per_s": _per_second(lambda: generator.generate(anchor_BD, range(COUNT)), COUNT),
        "faces_encoded_per_s": _per_second(job, COUNT),
        "eyes_320x240_per_s": _per_second(lambda: render_eyes(range(EYES), size_px=(240, 320)), EYES),
        "eyes_640x400_per_s": _per_second(lambda: render_eyes(range(EYES), size_px=(400, 640)), EYES),
    }
    for name, value in found.items():
        logging.info("%-22s %8.1f", name, value)
    machine = {"processor": platform.processor() or platform.machine(), "numpy": np.__version__, "threads": 1}
    passed = found["faces_per_s"] >= GOAL_PER_S and found["eyes_320x240_per_s"] >= EYE_GOAL_PER_S
    write_json(Path(__file__).parent / "results_rendered.json", {"goals_per_s": [GOAL_PER_S, EYE_GOAL_PER_S], "passed": passed, "machine": machine, **found})


def _per_second(call: Callable[[], object], images: int) -> float:
    """Images a second of processor time, of the fastest round."""
    call()
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return images / min(times)


if __name__ == "__main__":
    main()
