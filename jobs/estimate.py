"""What a job will cost: a few batches timed here, and the arithmetic carried over to hardware with a price."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import UserError, near_names
from .identities import make_identities

from .plan import Plan, make_plan, resolve_device
from .preview import first_rows
from .spec import JobSpec
from .make_images import make_images
from .steps import open_generator, record_of

SHARE_OF_PEAK = (0.03, 0.3)
"""Of the peak rate that sampling reaches: the lower end for small networks in small batches, the upper for large ones. A rule of thumb [C], no measurement."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A card one can rent: its dense bfloat16 peak by its maker's data sheet, and the price of Hugging Face Jobs (challenge_ecosystem.md §3.6)."""

    peak_tflop_s: float
    usd_per_h: float


HARDWARE = {
    "l4": Hardware(peak_tflop_s=121, usd_per_h=0.80),
    "a10g": Hardware(peak_tflop_s=70, usd_per_h=1.00),
    "l40s": Hardware(peak_tflop_s=362, usd_per_h=1.80),
    "a100": Hardware(peak_tflop_s=312, usd_per_h=2.50),
    "rtx-pro-6000": Hardware(peak_tflop_s=504, usd_per_h=2.75),
    "h200": Hardware(peak_tflop_s=989, usd_per_h=5.00),
}


def estimate(spec: JobSpec, *, batches: int = 2, workers: int | None = None, usd_per_h: float | None = None, on: Sequence[str] = ()) -> dict[str, Any]:
    """Time some batches of a job and say what the whole will take; nothing is written.

    One more batch goes first, untimed: it warms up, and its floating-point operations are counted. The hours here are measured for one
    worker and divided by the number of workers (those of a CPU share its memory: expect somewhat more). Replacements of a refill are not in it.

    Args:
        batches: how many are timed.
        workers: processes; default as `run` would take them.
        usd_per_h: price of this machine, for the cost here.
        on: names in `HARDWARE` to carry the arithmetic over to; default all.

    Raises:
        UserError: an unknown name of hardware, or every image failed.
    """
    names = [_known(name) for name in on] or list(HARDWARE)
    plan = make_plan(spec, resolve_device(spec.engine.device))
    number = workers or spec.engine.workers or spec.engine.executor.workers(plan.device)
    cost = _measure(plan, batches)
    per_image = cost["generate_s"] + cost["judge_s"] + cost["write_s"]
    hours = plan.images * per_image / number / 3600
    spread = [plan.images * (seconds + cost["judge_s"] + cost["write_s"]) / number / 3600 for seconds in (min(cost["batches_s"]), max(cost["batches_s"]))]
    flop = cost["flop"]
    return {
        "job": spec.name, "images": plan.images, "device": plan.device, "workers": number, "batch": spec.engine.batch, "measured_images": cost["images"],
        "seconds_per_image": {name: round(cost[f"{name}_s"], 5) for name in ("generate", "judge", "write")}, "images_per_s": round(number / per_image, 3),
        "hours": round(hours, 4), "hours_by_batch": [round(value, 4) for value in spread], "worker_hours": round(hours * number, 4),
        "usd": None if usd_per_h is None else round(hours * usd_per_h, 2), "peak_disk_gb": round(2 * plan.images * cost["bytes"] / 1e9, 4), "memory_mb": cost["memory_mb"],
        "gflop_per_image": round(flop / 1e9, 3), "elsewhere": [_elsewhere(name, flop * plan.images) for name in names] if flop else [],
    }  # fmt: skip


def _measure(plan: Plan, batches: int) -> dict[str, Any]:
    """Return seconds an image of each part, operations and bytes an image, and this process's memory."""
    import psutil
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ..recognition.embedder import embed_faces, load_embedder

    spec = plan.spec
    torch.set_num_threads(spec.engine.threads)
    anchor_ID, _ = make_identities(spec.identities, spec.seed)
    generator, judge = open_generator(plan, anchor_ID), load_embedder(spec.judge)
    rows = first_rows(spec, spec.engine.batch * (batches + 1), spec.per_identity)
    parts = [rows[start : start + spec.engine.batch] for start in range(0, len(rows), spec.engine.batch)]
    timed = parts[1:] or parts  # a job of one batch is warmed up by its own rows
    with FlopCounterMode(display=False) as counter:
        first = _made(plan, generator, anchor_ID, parts[0])
    embed_faces(judge, np.stack([image for *_, image in first]))  # its network loads on the first call
    seconds, images = [], []
    for part in timed:
        begin_s = time.perf_counter()
        images += _made(plan, generator, anchor_ID, part)  # ends on the host: images are arrays
        seconds.append((time.perf_counter() - begin_s) / len(part))
    begin_s = time.perf_counter()
    records = [record_of(plan, generator.name, anchor_ID, *row) for row in images]
    written_s = time.perf_counter()
    embed_faces(judge, np.stack([image for *_, image in images]))
    judged_s = time.perf_counter()
    return {
        "images": len(images), "batches_s": seconds, "generate_s": float(np.average(seconds, weights=[len(part) for part in timed])),
        "write_s": (written_s - begin_s) / len(images), "judge_s": (judged_s - written_s) / len(images), "flop": counter.get_total_flops() / len(parts[0]),
        "bytes": float(np.mean([len(record.image) for record in records])), "memory_mb": round(psutil.Process().memory_info().rss / 1e6),
    }  # fmt: skip


def _made(plan: Plan, generator: Any, anchor_ID: np.ndarray, rows: Sequence[tuple[int, int]]) -> list:
    images, failed = make_images(plan, generator, anchor_ID, rows)
    if not images:
        raise UserError(f"every image of a batch failed; the first: {failed[0]['reason']}")
    return images


def _elsewhere(name: str, flop: float) -> dict[str, Any]:
    """Hours and cost of generating on one such card, from its peak rate alone; best and worst case."""
    card = HARDWARE[name]
    slow, fast = (flop / (share * card.peak_tflop_s * 1e12) / 3600 for share in SHARE_OF_PEAK)
    return {"hardware": name, "hours": [round(fast, 4), round(slow, 4)], "usd": [round(fast * card.usd_per_h, 2), round(slow * card.usd_per_h, 2)]}


def _known(name: str) -> str:
    if name.lower() not in HARDWARE:
        raise UserError(f"unknown hardware '{name}'; {near_names(name, HARDWARE)}")
    return name.lower()
