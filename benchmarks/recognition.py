"""Speed and memory of recognisers: training against the same loop written plainly, share of the machine's peak, embedding by torch and ONNX, Partial FC.

Run `python benchmarks/recognition.py --threads 1` in the repository root; it writes benchmarks/results_recognition.json. Everything that is compared runs in
turns, the best of several rounds counts; with one thread processor time is measured, else time of day. The peak is a float32 matrix product of 1024³ in the same run. Memory is the peak of a process of its own, less what
it had before the centres were made; two steps of ArcFace, so that momentum is there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from facefoundry.core.files import write_json
from facefoundry.core.training import fresh, run_loop
from facefoundry.recognition.augment import AugmentConfig
from facefoundry.recognition.backbones import BackboneConfig
from facefoundry.recognition.batches import Batches
from facefoundry.recognition.embedder import TorchEmbedder
from facefoundry.recognition.heads import ClassCentres, HeadConfig, margin_loss
from facefoundry.recognition.onnx_embedder import OnnxEmbedder, export_recogniser
from facefoundry.recognition.partial_fc import PartialCentres, PartialFcConfig, partial_loss
from facefoundry.recognition.train import RecogniserObjective, RecogniserRecipe

log = logging.getLogger(__name__)
CLASSES, FACES = 1000, 512


def clock() -> float:
    """Processor time with one thread (what else the machine does then hardly matters), else time of day."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def best(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each case, the best of several rounds in turns."""
    found = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, case in cases.items():
            start = clock()
            case()
            found[name] = min(found[name], clock() - start)
    return found


def peak_flops(rounds: int = 5, side: int = 1024) -> float:
    """Operations a second of a float32 matrix product."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    return 2.0 * side**3 / best({"gemm": lambda: a @ b}, rounds)["gemm"]


def training_flops(config: BackboneConfig) -> float:
    """Operations of the forward and backward pass for one image, convolutions and matrix products."""
    with FakeTensorMode():
        network = config.build().train()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(2, 3, 112, 112)).sum().backward()
    return counter.get_total_flops() / 2


def recipe_of(config: BackboneConfig, batch: int, steps: int) -> RecogniserRecipe:
    """ArcFace with the published optimiser, a mirror and nothing else."""
    return RecogniserRecipe(backbone=config, head=HeadConfig(name="arcface"), augment=AugmentConfig(flip=0.5), batch=batch, steps=steps, log_every=1000, checkpoint_every=100_000, seed=1)


def data(batch: int) -> Batches:
    """Noise: what a face shows does not matter to the clock."""
    rng = np.random.default_rng(0)
    image_NHWC = rng.integers(0, 256, (FACES, 112, 112, 3), np.uint8)
    return Batches(image_NHWC, torch.from_numpy(rng.integers(0, CLASSES, FACES)), batch=batch, seed=1, changes=AugmentConfig(flip=0.5))


class Timed:
    """Batches that note when each was asked for: a step lasts from its batch to the next."""

    def __init__(self, batch: int) -> None:
        self._batches, self.asked = data(batch), []
        self.steps_per_epoch = self._batches.steps_per_epoch

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> tuple[torch.Tensor, ...]:
        self.asked.append(clock())
        return self._batches(step, rank, world)

    @property
    def seconds(self) -> float:
        """Median of the steps, the first two left out."""
        return float(np.median(np.diff(self.asked)[2:]))


def house_seconds(config: BackboneConfig, batch: int, steps: int) -> float:
    """Seconds of a step of our loop."""
    recipe, batches = recipe_of(config, batch, 3 + steps), Timed(batch)
    objective = fresh(lambda: RecogniserObjective(recipe, CLASSES), 1, "recogniser")
    with tempfile.TemporaryDirectory() as folder:
        run_loop(objective, batches, recipe, Path(folder), data="noise")
    return batches.seconds


def plain_seconds(config: BackboneConfig, batch: int, steps: int) -> float:
    """Seconds of the same step as one would write it in a script."""
    network, centres, head, batches = config.build().train(), ClassCentres(CLASSES, config.embed_dim), HeadConfig(name="arcface").build(), Timed(batch)
    optimiser = torch.optim.SGD([*network.parameters(), *centres.parameters()], lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(3 + steps):
        image_BCHW, label_B = batches(step)
        optimiser.zero_grad()
        loss = margin_loss(head, centres, network(image_BCHW), label_B)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss {loss}")
    return batches.seconds


def training(name: str, config: BackboneConfig, batch: int, steps: int, rounds: int) -> dict[str, float]:
    """Images a second of our loop and of the plain one, and the share of the peak."""
    found = {"house": float("inf"), "plain": float("inf")}
    for _ in range(rounds):
        found = {"house": min(found["house"], house_seconds(config, batch, steps)), "plain": min(found["plain"], plain_seconds(config, batch, steps))}
    rate, peak, flop = batch / found["house"], peak_flops(), training_flops(config)
    row = {
        "network": name, "batch": batch, "images_a_second": rate, "plain_images_a_second": batch / found["plain"], "house_over_plain": found["plain"] / found["house"],
        "gflop_an_image": flop / 1e9, "peak_gflop_a_second": peak / 1e9, "share_of_peak": rate * flop / peak,
    }  # fmt: skip
    log.info("training %s: %.1f images/s, plain %.1f (%.2f), %.0f %% of %.0f GFLOP/s", name, rate, row["plain_images_a_second"], row["house_over_plain"], 100 * row["share_of_peak"], peak / 1e9)
    return row


def embedding(name: str, config: BackboneConfig, batch: int, rounds: int) -> dict[str, float | str]:
    """Images a second of the trained network by torch, ONNX Runtime and, where it is installed, OpenVINO."""
    network = config.build().eval()
    image_BCHW = torch.rand(batch, 3, 112, 112) * 2 - 1
    ours = TorchEmbedder(network, name=name, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "network.onnx"
        export_recogniser(network, path)
        cases: dict[str, Callable[[], object]] = {"torch": lambda: ours(image_BCHW), "onnxruntime": lambda onnx=OnnxEmbedder(path): onnx(image_BCHW)}
        if importlib.util.find_spec("openvino"):
            import openvino

            compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
            cases["openvino"] = lambda: compiled([image_BCHW.numpy()])
        seconds = best(cases, rounds)
    row = {"network": name, "batch": batch, **{f"{case}_images_a_second": batch / value for case, value in seconds.items()}}
    log.info("embedding %s, batch %d: %s", name, batch, ", ".join(f"{case} {batch / value:.1f} images/s" for case, value in seconds.items()))
    return row


def head_memory(classes: int, rate: float, dim: int, batch: int) -> dict[str, float]:
    """Peak memory and seconds of two steps of ArcFace over `classes`; rate 0 = plain centres. Runs in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    head, label_B = HeadConfig(name="arcface").build(), torch.arange(batch) * (classes // batch)
    partial = PartialCentres(classes, dim, PartialFcConfig(rate=rate)).train() if rate else None
    centres = partial or ClassCentres(classes, dim)
    optimiser = None if rate else torch.optim.SGD(centres.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(2):
        raw_BD = torch.randn(batch, dim, requires_grad=True)
        start = clock()
        if partial is not None:
            partial_loss(head, partial, raw_BD, label_B)["loss"].backward()
            partial.step(0.1)
        else:
            optimiser.zero_grad()
            margin_loss(head, centres, raw_BD, label_B)["loss"].backward()
            optimiser.step()
        seconds = clock() - start
    return {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "seconds_a_step": seconds}


def memory(classes: int, rate: float, options: argparse.Namespace) -> dict[str, float]:
    """`head_memory` in a new process."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--one-memory", f"{classes},{rate},{options.dim},{options.head_batch}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = {"classes": classes, "rate": rate or 1.0, "partial_fc": bool(rate), "dim": options.dim, "batch": options.head_batch, **json.loads(done.stdout)}
    log.info("%d classes, %s: %.0f MiB, %.2f s a step", classes, f"Partial FC {rate:g}" if rate else "all centres", row["mib"], row["seconds_a_step"])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--classes", default="100000,1000000")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--head-batch", type=int, default=64)
    parser.add_argument("--networks", default="mobilefacenet,mobilefacenet-small,ir-18")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results_recognition.json")
    parser.add_argument("--one-memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.one_memory:
        classes, rate, dim, batch = options.one_memory.split(",")
        sys.stdout.write(json.dumps(head_memory(int(classes), float(rate), int(dim), int(batch))))
        return
    known = {"mobilefacenet": (BackboneConfig(), 16), "mobilefacenet-small": (BackboneConfig(width=0.5, embed_dim=128), 32), "ir-18": (BackboneConfig(name="ir-18"), 8)}
    chosen = {name: known[name] for name in options.networks.split(",")}
    found = {
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": options.threads,
        "memory": [memory(int(classes), rate, options) for classes in options.classes.split(",") for rate in (0.0, 0.1)],
        "training": [training(name, config, batch, options.steps, options.rounds) for name, (config, batch) in chosen.items()],
        "embedding": [embedding(name, config, batch, 2 * options.rounds) for name, (config, _) in chosen.items() for batch in (1, 32)],
    }  # fmt: skip
    write_json(options.out, found)


if __name__ == "__main__":
    main()
