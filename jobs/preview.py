"""A look at a job before it runs: its first images, made as the job would make them, on one contact sheet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes
from ..core.images import encode_png, to_float
from .contact_sheet import sheet
from .identities import make_identities
from .local import cores
from .plan import make_plan, resolve_device
from .spec import JobSpec
from .make_images import make_images
from .steps import open_generator


def preview(spec: JobSpec, out: Path, *, images: int = 8, per_identity: int = 4) -> dict[str, Any]:
    """Make some images of a job and write them as one PNG; nothing else is written.

    Anchors and seeds are those of the job, so these people will be in the dataset; filters are not applied. Pixels may differ from the
    job's in the last bit, because batches do.

    Args:
        images: how many, at most.
        per_identity: images a person, a row of the sheet; the job's own number if that is less.

    Returns:
        Counts, seconds, and (where the judge lives in the space of the anchors) the mean cosine of each person's images to the anchor.

    Raises:
        UserError: every image failed, with the first reason.
    """
    import torch

    plan = make_plan(spec, resolve_device(spec.engine.device))
    torch.set_num_threads(max(spec.engine.threads, cores()))  # one process: it may have what the workers would share
    anchor_ID, _ = make_identities(spec.identities, spec.seed)
    rows = first_rows(spec, images, per_identity)
    generator = open_generator(plan, anchor_ID)
    begin_s = time.monotonic()
    made, failed = make_images(plan, generator, anchor_ID, rows)
    seconds = time.monotonic() - begin_s
    if not made:
        raise UserError(f"every image of the preview failed; the first: {failed[0]['reason']}")
    image_NHWC = np.stack([image for *_, image in made])
    people = [identity for identity, *_ in made]
    grid = [[row for row, owner in enumerate(people) if owner == identity] for identity in dict.fromkeys(people)]
    write_bytes(out, encode_png(sheet(image_NHWC, grid)))
    return {
        "images": len(made), "identities": len(grid), "failed": failed, "seconds": round(seconds, 1), "images_per_s": round(len(made) / seconds, 2) if seconds else None,
        "anchor_cosine": _anchor_cosines(spec, image_NHWC, anchor_ID, grid, people), "sheet": str(out),
    }  # fmt: skip


def first_rows(spec: JobSpec, images: int, per_identity: int) -> list[tuple[int, int]]:
    """Return the addresses (identity, image) of the first images of the first people, at most `images`."""
    columns = min(per_identity, spec.per_identity, images)
    people = min(spec.identities.count, -(-images // columns))
    return [(identity, image) for identity in range(people) for image in range(columns)][:images]


def _anchor_cosines(spec: JobSpec, image_NHWC: np.ndarray, anchor_ID: np.ndarray, grid: Sequence[Sequence[int]], people: Sequence[int]) -> list[float] | None:
    from ..recognition.embedder import load_embedder

    judge = load_embedder(spec.judge)
    if judge.dim != anchor_ID.shape[1]:
        return None
    embed_ND = judge(to_float(image_NHWC)).detach().cpu().numpy()
    cos_N = (embed_ND * anchor_ID[people]).sum(axis=1)
    return [round(float(cos_N[list(members)].mean()), 3) for members in grid]
