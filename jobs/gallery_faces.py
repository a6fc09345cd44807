"""What every picture of the gallery begins with: a job's people, their seeds, their faces, and the judge's cosines.

Axes: I identities, N images, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.errors import UserError
from ..core.images import to_float, to_uint8
from ..core.progress import bar
from ..core.seeds import derive_seed
from ..core.types import Embedder
from .identities import make_identities
from .local import cores
from .plan import resolve_device
from .spec import JobSpec
from .steps import build_generator


@dataclass(frozen=True, kw_only=True)
class People:
    """The first people of a job, as the job itself would make them.

    Attributes:
        anchor_ID: unit float32.
        judge: the job's, or None where it lives in another space than the anchors.
    """

    spec: JobSpec
    generator: Any
    anchor_ID: np.ndarray
    judge: Embedder | None

    def seed(self, identity: int, image: int) -> int:
        """Return the job's own seed of that image."""
        return derive_seed(self.spec.seed, identity, image, "noise")

    def faces(self, anchor_ND: np.ndarray, seeds: Sequence[int], *, batch: int | None = None, label: str = "faces") -> np.ndarray:
        """Return uint8 (N, 112, 112, 3), made in the job's micro-batches, or in those of `batch`."""
        size, parts = batch or self.spec.engine.batch, []
        with bar(label, len(seeds)) as advance:
            for start in range(0, len(seeds), size):
                parts.append(to_uint8(self.generator.generate(anchor_ND[start : start + size], seeds[start : start + size]).image_BCHW))
                advance(len(parts[-1]))
        return np.concatenate(parts)

    def embed(self, image_NHWC: np.ndarray) -> np.ndarray | None:
        """Return the judge's unit rows (N, D), or None without a judge of the anchors' space."""
        return None if self.judge is None else self.judge(to_float(image_NHWC)).detach().cpu().numpy()


def open_people(spec: JobSpec, count: int) -> People:
    """Draw a job's first `count` anchors and build its generator.

    Raises:
        UserError: anchors of another width than the generator takes.
    """
    from ..recognition.embedder import load_embedder

    device = resolve_device(spec.engine.device)
    torch.set_num_threads(max(spec.engine.threads, cores()))
    # The job's own count, where it is larger: which anchors are drawn can depend on it.
    source = spec.identities.model_copy(update={"count": max(count, spec.identities.count)})
    anchor_ID, _ = make_identities(source, spec.seed)
    generator = build_generator(spec.generator.settings, torch.device(device))
    if anchor_ID.shape[1] != generator.anchor_dim:
        raise UserError(f"the identities have {anchor_ID.shape[1]} numbers each, but the generator '{generator.name}' takes {generator.anchor_dim}; use anchors made for it")
    judge = load_embedder(spec.judge)
    return People(spec=spec, generator=generator, anchor_ID=anchor_ID[:count], judge=judge if judge.dim == anchor_ID.shape[1] else None)


def need_watch(generator: Any, what: str) -> None:
    """Raise UserError unless the generator shows its sampling (`generators.watching`)."""
    from ..generators.uiface import UIFace

    if not isinstance(generator, UIFace):
        raise UserError(f"{what} looks into UIFace's two stages, but the job's generator is '{generator.name}'; name a job with generator: {{name: uiface}}, or leave the job out")
