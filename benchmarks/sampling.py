"""UIFace sampling on this machine: precision, skipped passes, and what both cost in identity and pixels.

Run: `python benchmarks/sampling.py`. Every row is measured in this process, interleaved, minimum of several rounds. The floor is
the network's multiply-adds over the machine's measured bf16 and fp32 matrix rates.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from facefoundry.core.files import bundled, write_json
from facefoundry.generators.uiface import UIFace, UIFaceConfig, UIFaceSampler
from facefoundry.generators.unet import FamilyUNet
from facefoundry.identity.anchors import AnchorPrior, sample_anchors


def timed(generator: UIFace, sampler: UIFaceSampler, anchor_BD: np.ndarray) -> tuple[float, object]:
    generator.sampler = sampler
    start = time.perf_counter()
    batch = generator.generate(anchor_BD, list(range(len(anchor_BD))))
    return time.perf_counter() - start, batch


def matrix_rate(dtype: torch.dtype, size: int = 3072) -> float:
    """Measured multiply-adds a second of a square matrix product."""
    a = torch.randn(size, size).to(dtype)
    best = min(_seconds(lambda: a @ a) for _ in range(5))
    return size**3 / best


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def forward_macs(generator: UIFace) -> float:
    network = FamilyUNet(generator.network.config)  # a fresh one: the counter's hooks need parameters that can take gradients
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *generator.autoencoder.latent_shape), torch.zeros(1), network.empty_rows(1))
    return counter.get_total_flops() / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_sampling.json"))
    options = parser.parse_args()
    anchor_BD = sample_anchors(AnchorPrior.load(bundled("anchor-prior.safetensors")), options.batch, seed=0)
    half, full = UIFaceConfig(precision="bf16").build(torch.device("cpu")), UIFaceConfig(precision="fp32").build(torch.device("cpu"))
    base = half.sampler.model_copy(update={"steps": options.steps})
    rows = {
        "bf16, duplicates skipped": (half, base),
        "bf16, every pass": (half, base.model_copy(update={"skip_duplicates": False})),
        "fp32, duplicates skipped": (full, base),
        "fp32, every pass": (full, base.model_copy(update={"skip_duplicates": False})),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    images = {}
    for _ in range(options.rounds):
        for name, (generator, sampler) in rows.items():
            took, images[name] = timed(generator, sampler, anchor_BD)
            seconds[name].append(took)
    passes = {name: float(np.mean(batch.passes_B)) for name, batch in images.items()}
    rate = {name: options.batch / min(values) for name, values in seconds.items()}
    result = {
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
        "batch": options.batch, "steps": options.steps, "images_per_s": rate, "passes_per_image": passes,
        "bf16_over_fp32": rate["bf16, duplicates skipped"] / rate["fp32, duplicates skipped"],
        "skipping_saves": rate["fp32, duplicates skipped"] / rate["fp32, every pass"],
        "largest_pixel_difference_fp32_skipped": float((images["fp32, duplicates skipped"].image_BCHW - images["fp32, every pass"].image_BCHW).abs().max()),
        "mean_pixel_difference_bf16": float((images["bf16, duplicates skipped"].image_BCHW - images["fp32, duplicates skipped"].image_BCHW).abs().mean()),
        "gmac_per_pass": forward_macs(full) / 1e9,
        "floor_images_per_s": {
            "fp32": matrix_rate(torch.float32) / (forward_macs(full) * passes["fp32, duplicates skipped"]),
            "bf16": matrix_rate(torch.bfloat16) / (forward_macs(full) * passes["bf16, duplicates skipped"]),
        },
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
