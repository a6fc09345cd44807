"""EyeSeg's speed at 320x240: frames a second, what they cost, and how far that is from this core's own best.

Run: `python benchmarks/eyeseg.py` (seconds; `--threads 2` for both cores); `--model FILE` for another segmenter.

- one at a time: a camera's case, grey uint8 240x320 in, labels and uncertainties of that size out; the median over the rounds. Goal: 60 frames/s on 2 cores.
- in eights: recordings.
- floor: the convolutions' multiply-adds over the rate of a large float32 matrix product on the same threads; a network that ran no slower than that product would
  need so long. What lies between the two is memory traffic, resampling, the softmax and small convolutions.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facefoundry.consumers.segmentation.eyeseg import EyeSeg, load_eyeseg
from facefoundry.consumers.segmentation.network import EyeSegNet
from facefoundry.core.files import write_json
from facefoundry.core.training import fresh
from facefoundry.jobs import show

PICTURE_PX, GOAL_PER_S = (240, 320), 60


def main() -> None:
    """Measure, show and, with --out, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="eyeseg-small or a file; left out, a network of the default shape with random weights (as fast)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    see = load_eyeseg(args.model) if args.model else EyeSeg(fresh(EyeSegNet, 0, "benchmark"), (192, 256))
    picture = np.random.default_rng(0).integers(0, 256, (8, *PICTURE_PX), dtype=np.uint8)
    one_s, eight_s = seconds(lambda: answer(see, picture[:1]), args.rounds), seconds(lambda: answer(see, picture), max(5, args.rounds // 8))
    image_B1HW = torch.zeros(1, 1, *see.size_px)
    with torch.no_grad():
        network_s = seconds(lambda: see.network(image_B1HW), args.rounds)
    multiply_adds, rate = convolutions(see), product_rate()
    figures = {
        "threads": args.threads, "parameters": sum(parameter.numel() for parameter in see.network.parameters()), "network's frame, px": "x".join(map(str, see.size_px)),
        "frames/s, one at a time": 1 / one_s, "frames/s, in eights": 8 / eight_s, "goal, frames/s": GOAL_PER_S, "ms a frame": 1e3 * one_s, "of that the network, ms": 1e3 * network_s,
        "GFLOP a frame": 2e-9 * multiply_adds, "matrix product, GFLOP/s": 2e-9 * rate, "floor, ms": 1e3 * multiply_adds / rate, "network over floor": network_s * rate / multiply_adds,
    }  # fmt: skip
    show.table(figures.items(), title="EyeSeg at 320x240")
    if args.out:
        write_json(args.out, figures)


def answer(see: EyeSeg, picture_BHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a user waits for: labels and uncertainties as arrays."""
    parts = see(picture_BHW)
    return parts.label_BHW.numpy(), parts.uncertainty_BHW.numpy()


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call, the first three left out."""
    taken = []
    for _ in range(rounds + 3):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[3:])


def convolutions(see: EyeSeg) -> int:
    """Multiply-adds of all convolutions for one frame, counted as they run."""
    counted = 0

    def count(module: nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal counted
        counted += out.numel() * module.weight[0].numel()

    handles = [module.register_forward_hook(count) for module in see.network.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        see.network(torch.zeros(1, 1, *see.size_px))
    for handle in handles:
        handle.remove()
    return counted


def product_rate(side: int = 1024) -> float:
    """Multiply-adds a second of a float32 matrix product."""
    left, right = torch.rand(2, side, side)
    return side**3 / seconds(lambda: left @ right, 15)


if __name__ == "__main__":
    main()
