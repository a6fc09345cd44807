"""From rows of a plan to images: micro-batches, what fails set apart with its reason, memory that runs out met with halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.progress import log
from .plan import Plan

if TYPE_CHECKING:
    from ..core.types import FaceBatch

Row = tuple[int, int]
"""(identity, image)."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate")
"""How torch's allocators put it where the error has no type of its own."""


def make_images(plan: Plan, generator: Any, anchor_ID: np.ndarray, rows: Sequence[Row], tell: Callable[[int], None] = lambda rows: None) -> tuple[list, list]:
    """Generate rows (identity, image) in the plan's micro-batches.

    Where memory runs out the batch is halved, and stays so for the rest of the rows: noise, anchors and seeds belong to the image, so that
    the images stay the same (to the last bit on a CPU; elsewhere as far as the kernels for another batch size are).

    Args:
        tell: called after each batch with the number of rows done.

    Returns:
        [(identity, image, seed, known, image_HWC uint8)] in the order of identities and images, and [{face_id, reason}] of those that failed; `known` are
        further fields of the record that the generator knows.

    Raises:
        UserError: one image alone does not fit into memory; more failed than the job's engine allows (`max_failures`).
    """
    images, failed = [], []
    for maker, mine in _makers(plan, generator, rows):
        left, size = list(mine), plan.spec.engine.batch
        while left:
            part, left = left[:size], left[size:]
            try:
                made, problems = _generate(maker, anchor_ID, part, plan.spec.seed)
            except MemoryError:
                left, size = part + left, _halve(len(part))
                continue
            images += made
            failed += problems
            tell(len(images) + len(failed))
            _stop_if_too_many(failed, len(rows), plan.spec.engine.max_failures)
    return sorted(images, key=lambda row: row[:2]), failed


def face_id(identity: int, image: int) -> str:
    """Return the name of an image, "000123/0007"."""
    return f"{identity:06d}/{image:04d}"


def _makers(plan: Plan, generator: Any, rows: Sequence[Row]) -> list[tuple[Any, Sequence[Row]]]:
    """Return which generator makes which rows: with `anchor_image` the first slot of everybody comes from the anchor as it is."""
    if not plan.spec.anchor_image:
        return [(generator, rows)]
    first = [row for row in rows if row[1] % plan.spec.per_identity == 0]  # replacements of a slot count on from it
    return [(_plain(generator), first), (generator, [row for row in rows if row[1] % plan.spec.per_identity])]


def _plain(generator: Any) -> Any:
    """Return the generator with the same weights and nothing that moves an image from its anchor; itself if its sampler knows no such thing."""
    sampler = getattr(generator, "sampler", None)
    moves = {key: value for key, value in {"cone": 1.0, "negative": 0.0}.items() if hasattr(sampler, key)}
    if not moves:
        return generator
    twin = copy(generator)
    twin.sampler = sampler.model_copy(update=moves)
    return twin


def _generate(generator: Any, anchor_ID: np.ndarray, rows: Sequence[Row], job_seed: int) -> tuple[list, list]:
    """Return ([(identity, image, seed, known, image_HWC)], [{face_id, reason}]); a batch that fails is tried again one by one.

    Raises:
        MemoryError: the batch does not fit.
    """
    from ..core.images import to_uint8
    from ..core.seeds import derive_seed

    seeds = [derive_seed(job_seed, identity, image, "noise") for identity, image in rows]
    try:
        batch = generator.generate(anchor_ID[[identity for identity, _ in rows]], seeds)
    except UserError:
        raise
    except Exception as error:  # whatever one image does must not lose the others: it is recorded with its reason
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from None  # without the frames, which would keep the batch's tensors alive
        if len(rows) == 1:
            return [], [{"face_id": face_id(*rows[0]), "reason": f"{type(error).__name__}: {error}"[:500]}]
        parts = [_generate(generator, anchor_ID, [row], job_seed) for row in rows]
        return [item for made, _ in parts for item in made], [item for _, failed in parts for item in failed]
    finite_B = batch.image_BCHW.flatten(1).isfinite().all(1).tolist()
    image_BHWC = to_uint8(batch.image_BCHW.nan_to_num())
    known = [_known(batch, place) for place in range(len(rows))]
    made = [(*row, seed, what, image) for row, seed, what, image, fine in zip(rows, seeds, known, image_BHWC, finite_B) if fine]
    return made, [{"face_id": face_id(*row), "reason": "the image holds NaN or infinite values"} for row, fine in zip(rows, finite_B) if not fine]


def _known(batch: FaceBatch, place: int) -> dict[str, Any]:
    """Return the fields of an image's record that its generator knows: the style it was asked for, landmarks, part labels."""
    from ..core.images import encode_labels

    known = {} if batch.styles is None else {"style": batch.styles[place]}
    known |= {} if batch.landmarks_px is None else {"landmarks_px": batch.landmarks_px[place]}
    return known | ({} if batch.parts is None else {"parts": encode_labels(batch.parts[place])})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY))


def _halve(size: int) -> int:
    """Return the next smaller batch and give cached memory of the device back."""
    import torch

    if size == 1:
        raise UserError("memory runs out with a single image in a batch; use fewer workers on this device, a smaller generator, or a device with more memory, then run the same command again")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning("memory ran out with %d images in a batch; going on with %d", size, size // 2)
    return size // 2


def _stop_if_too_many(failed: Sequence[dict[str, str]], asked: int, limit: float) -> None:
    """A generator that fails this often is broken; hours of it would make a dataset nobody wants. A lone failure never stops a job."""
    if len(failed) > max(1.0, limit * asked):
        reasons = {item["reason"]: 0 for item in failed}
        for item in failed:
            reasons[item["reason"]] += 1
        common = max(reasons, key=reasons.__getitem__)
        raise UserError(f"{len(failed)} of a shard's {asked} images failed, more than engine.max_failures = {limit:g}; the most frequent reason ({reasons[common]} times): {common}; mend it, or allow more")
