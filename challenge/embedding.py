"""Named image files in, unit embeddings out; what fails stops the work, or is marked so that every line of a protocol still gets its score.

Axes: N images, B images of a batch, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.errors import UserError
from ..core.images import decode, to_float
from ..core.progress import bar, log
from ..core.types import Embedder

SIDE = 112
OnFailure = Literal["stop", "mark"]
"""stop: the first image that cannot be used is an error. mark: it gets a fallback crop, or none, and is listed."""

ABSENT_SCORE = -1.0
"""Cosine of a pair with an absent image: below every threshold, a failure to acquire counts as a non-match (ISO/IEC 19795-1)."""


class Aligner(Protocol):
    """A photo, uint8 (H, W, 3) → (aligned face uint8 (112, 112, 3), landmarks), or None where no face is found."""

    def __call__(self, image_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An image that could not be used as it should.

    Attributes:
        reason: what was wrong.
        absent: True where it has no embedding at all; False where a centre crop of it was embedded.
    """

    reason: str
    absent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Embeddings of named images.

    Attributes:
        row: name → row of `embed_ND`.
        embed_ND: unit rows, float64; an absent image has a row of zeros.
        norm_N: length of the raw feature of the original image (not flipped) where the embedder gives raw features, else None.
        marks: images that failed, by name.
    """

    row: dict[str, int]
    embed_ND: np.ndarray
    norm_N: np.ndarray | None
    marks: dict[str, Mark] = field(default_factory=dict)

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """Return the embeddings of some images, in their order."""
        return self.embed_ND[[self.row[name] for name in names]]

    def pair_scores(self, paths: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the cosine of each pair; `ABSENT_SCORE` where an image is absent."""
        left, right = (self.rows([pair[side] for pair in paths]) for side in (0, 1))
        score_P = np.clip(np.einsum("pd,pd->p", left, right), -1.0, 1.0)
        absent = {name for name, mark in self.marks.items() if mark.absent}
        if absent:
            score_P[[bool({*pair} & absent) for pair in paths]] = ABSENT_SCORE
        return score_P


def embed_images(
    embedder: Embedder,
    names: Sequence[str],
    read: Callable[[str], bytes],
    *,
    flip: bool = True,
    batch: int = 64,
    on_failure: OnFailure = "stop",
    aligner: Aligner | None = None,
) -> Embedded:
    """Embed images by name.

    Args:
        names: each once.
        read: name → encoded image; raises UserError where there is none.
        flip: add the feature of the mirrored image before normalising. Raw features are added where the embedder has a method `raw`
            (the field's way); of unit rows otherwise, so that both weigh the same.
        aligner: brings images of another size than 112x112 to the template. Without one they are an error (stop) or centre-cropped (mark).

    Raises:
        UserError: with "stop", an image that is missing, damaged, unaligned or without a face, or a feature that is not finite (named).
    """
    embed_ND, norm_N = np.zeros((len(names), embedder.dim)), np.full(len(names), np.nan)
    marks: dict[str, Mark] = {}
    faces = _faces(names, read, aligner, on_failure, marks)
    step_size = max(batch, getattr(embedder, "bulk", 0))
    with bar(f"embedding for {embedder.name}", len(names)) as step, torch.no_grad():
        while part := list(islice(faces, step_size)):
            rows = [row for row, _ in part]
            feature_BD, norm_B = _features(embedder, to_float(np.stack([face for _, face in part])), flip)
            length_B = np.linalg.norm(feature_BD, axis=1)
            for place in np.flatnonzero(~((length_B > 1e-12) & (length_B < np.inf))):
                _fail(names[rows[place]], "the embedding is NaN, infinite or zero; the recogniser is broken or the file holds no face", True, on_failure, marks)
                feature_BD[place], length_B[place] = 0.0, 1.0
            embed_ND[rows], norm_N[rows] = feature_BD / length_B[:, None], norm_B
            step(len(part))
    if marks:
        first, mark = next(iter(marks.items()))
        log.warning("%d of %d images marked, first: %s: %s", len(marks), len(names), first, mark.reason)
    return Embedded(row={name: index for index, name in enumerate(names)}, embed_ND=embed_ND, norm_N=norm_N if np.isfinite(norm_N).any() else None, marks=marks)


def centre_crop(image_HWC: np.ndarray) -> np.ndarray:
    """Return the middle square of a photo as 112x112: what is embedded where no face is found."""
    height, width = image_HWC.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(image_HWC[top : top + side, left : left + side]))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0))


def _faces(names: Sequence[str], read: Callable[[str], bytes], aligner: Aligner | None, on_failure: OnFailure, marks: dict[str, Mark]) -> Iterator[tuple[int, np.ndarray]]:
    for row, name in enumerate(names):
        try:
            image_HWC = decode(read(name))
        except UserError as error:
            _fail(name, str(error), True, on_failure, marks)
            continue
        yield row, image_HWC if image_HWC.shape == (SIDE, SIDE, 3) else _bring_to_size(name, image_HWC, aligner, on_failure, marks)


def _bring_to_size(name: str, image_HWC: np.ndarray, aligner: Aligner | None, on_failure: OnFailure, marks: dict[str, Mark]) -> np.ndarray:
    if aligner is None:
        size = f"{image_HWC.shape[1]}x{image_HWC.shape[0]}"
        _fail(name, f"is {size}, expected an aligned {SIDE}x{SIDE} face; align the folder with: facefoundry ingest", False, on_failure, marks)
        return centre_crop(image_HWC)
    found = aligner(image_HWC)
    if found is None:
        _fail(name, "no face was found", False, on_failure, marks)
        return centre_crop(image_HWC)
    return found[0]


def _fail(name: str, reason: str, absent: bool, on_failure: OnFailure, marks: dict[str, Mark]) -> None:
    if on_failure == "stop":
        raise UserError(f"{name}: {reason}")
    marks[name] = Mark(reason=reason, absent=absent)


def _features(embedder: Embedder, image_BCHW: Tensor, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (features with the mirror image added, norms of the original's raw features or NaN)."""
    raw = getattr(embedder, "raw", None)
    network = raw or embedder
    original_BD = network(image_BCHW).double().cpu()
    norm_B = original_BD.norm(dim=1).numpy() if raw else np.full(len(original_BD), np.nan)
    feature_BD = original_BD + network(image_BCHW.flip(3)).double().cpu() if flip else original_BD
    return feature_BD.numpy().copy(), norm_B
