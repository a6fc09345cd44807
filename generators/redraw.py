"""Re-drawing of images that miss their identity: the acceptance loop of ID³'s Algorithm 3, for any generator (generators.md §1.5 [C])."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..core.config import Config
from ..core.seeds import derive_seed
from ..core.types import Embedder, FaceBatch

Draw = Callable[[np.ndarray, Sequence[int]], FaceBatch]


class Redraw(Config):
    """When an image is drawn again.

    Attributes:
        keep_cosine: an image is accepted if its embedding has at least this cosine to its anchor; null accepts all.
        most: draws after the first; if none is accepted the one nearest to its anchor is kept, and filters see it as it is.
        embedder: judges; null = the generator's guide. It should differ from what guided the image, and be of the anchors' space.
    """

    keep_cosine: float | None = Field(None, ge=-1, le=1)
    most: int = Field(3, ge=0, le=100)
    embedder: str | None = None


def with_redraws(draw: Draw, anchor_BD: np.ndarray, seeds: Sequence[int], judge: Embedder, config: Redraw) -> FaceBatch:
    """Draw, judge, and draw what failed again from the next seed derived from the image's own.

    Each image depends on its anchor and seed alone, never on its batch: the rows still open are drawn together, the others rest.

    Returns:
        The faces under the seeds asked for, all passes counted, and the redraws of each.
    """
    batch = draw(anchor_BD, seeds)
    if config.keep_cosine is None:
        return batch
    anchor_BD = np.asarray(anchor_BD, np.float32)
    image_BCHW, passes, redraws = batch.image_BCHW.clone(), list(batch.passes_B), [0] * len(seeds)
    best_B = _cosines(judge, image_BCHW, anchor_BD)
    for attempt in range(1, config.most + 1):
        open_rows = [row for row, cosine in enumerate(best_B.tolist()) if not cosine >= config.keep_cosine]
        if not open_rows:
            break
        again = draw(anchor_BD[open_rows], [derive_seed(seeds[row], "redraw", attempt) for row in open_rows])
        cosine_R = _cosines(judge, again.image_BCHW, anchor_BD[open_rows])
        for place, row in enumerate(open_rows):
            passes[row] += again.passes_B[place]
            redraws[row] += 1
            if not best_B[row] >= cosine_R[place]:  # also leaves an image of NaN
                image_BCHW[row], best_B[row] = again.image_BCHW[place], cosine_R[place]
    return FaceBatch(image_BCHW=image_BCHW, seeds=tuple(seeds), passes_B=tuple(passes), redraws_B=tuple(redraws))


@torch.no_grad()
def _cosines(judge: Embedder, image_BCHW: Tensor, anchor_BD: np.ndarray) -> Tensor:
    """Return the cosine of each image to its anchor, float32 (B,) on the CPU."""
    return (judge(image_BCHW).float().cpu() * torch.from_numpy(anchor_BD)).sum(1)
