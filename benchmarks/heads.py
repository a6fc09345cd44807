"""Cost of each margin head, forward and backward with its softmax, against plain scaled cosines; and of the pair losses. One thread, interleaved.

Run `python benchmarks/heads.py` in the repository root; it writes benchmarks/results_heads.json. Published: CurricularFace costs 2 % of a training step
more than ArcFace, CIFP makes a step 1.4 times as long as CosFace's (both with the backbone and on GPUs; here the head alone is timed).
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from facefoundry.core.files import write_json
from facefoundry.recognition.ddl import DdlLossConfig, ddl_of_embeddings
from facefoundry.recognition.ekd import Ekd, EkdConfig
from facefoundry.recognition.heads import HEADS, ClassCentres, margin_loss

ROUNDS = 7
BATCH, DIM = 64, 128


def measure(classes: int) -> dict[str, float]:
    """Return seconds of a step (best of several) for every head, with `classes` identities, and for DDL and EKD on 128 and 512 rows."""
    generator = torch.Generator().manual_seed(0)
    centres = ClassCentres(classes, DIM)
    label_B = torch.randint(classes, (BATCH,), generator=generator)
    raw_BD = (centres.weight.detach()[label_B] + 0.02 * torch.randn(BATCH, DIM, generator=generator)).requires_grad_()
    many_ND = torch.randn(512, DIM, generator=generator).requires_grad_()
    teacher_ND, label_N = torch.randn(512, DIM, generator=generator), torch.arange(512) // 4
    term = Ekd(EkdConfig())
    cases: dict[str, Callable[[], torch.Tensor]] = {"ddl": lambda: ddl_of_embeddings(many_ND[:128].chunk(2), DdlLossConfig())["loss"], "ekd": lambda: term(many_ND, teacher_ND, label_N)["loss"]}
    for name in HEADS:
        cases[name] = lambda head=HEADS[name](): margin_loss(head, centres, raw_BD, label_B)["loss"]
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):  # interleaved: whatever else the machine does meets all
        for name, case in cases.items():
            start = time.perf_counter()
            case().backward()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    rows = []
    for classes in (1_000, 10_000):
        seconds = measure(classes)
        rows.append({"classes": classes, "batch": BATCH, "seconds": seconds, "ratio_to_softmax": {name: seconds[name] / seconds["softmax"] for name in HEADS}})
        logging.info("%d classes: %s", classes, ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in seconds.items()))
    write_json(Path(__file__).parent / "results_heads.json", {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
