"""Parts for tests of the job line: a generator that draws faces from anchor and seed, and a judge that needs no network.

Also a program: `python tests/procedural.py run job.yaml --out folder` is the real command line with these parts registered.
Spawned workers import the main module again and so find them too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from facefoundry.core.check import check
from facefoundry.core.config import Config
from facefoundry.core.files import sha256_file
from facefoundry.core.seeds import noise
from facefoundry.core.types import FaceBatch
from facefoundry.generators.registry import GENERATORS
from facefoundry.recognition.embedder import EMBEDDERS

DIM = 128
_PIXELS = torch.linalg.qr(noise([7], (3 * 14 * 14, DIM))[0])[0]


@GENERATORS.register("procedural")
class ProceduralConfig(Config):
    """Blocks of colour: the anchor's pattern, disturbed by the seed. `delay_s` slows an image down, `fail_every` makes one in n fail."""

    delay_s: float = 0.0
    fail_every: int = 0
    nan_every: int = 0
    spread: float = 0.5

    def build(self, device: torch.device) -> Procedural:
        """Return the generator."""
        return Procedural(self)

    @classmethod
    def tiny(cls) -> Procedural:
        """The generator with its defaults."""
        return Procedural(cls())


class Procedural:
    """See `ProceduralConfig`."""

    name = "procedural"
    anchor_dim = DIM

    def __init__(self, config: ProceduralConfig) -> None:
        self.config = config

    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        """Draw one image for each row."""
        time.sleep(self.config.delay_s * len(seeds))
        if self.config.fail_every and any(seed % self.config.fail_every == 0 for seed in seeds):
            raise RuntimeError("the procedural generator fails on this seed")
        pattern_BX = torch.as_tensor(np.array(anchor_BD), dtype=torch.float32) @ _PIXELS.T
        block_BCHW = 0.35 * (pattern_BX.view(-1, 3, 14, 14) * 28 + self.config.spread * noise(seeds, (3, 14, 14)))
        image_BCHW = torch.nn.functional.interpolate(block_BCHW, size=112, mode="nearest").clamp(-1, 1)
        for row, seed in enumerate(seeds):
            if self.config.nan_every and seed % self.config.nan_every == 0:
                image_BCHW[row, 0, 0, 0] = float("nan")
        return FaceBatch(image_BCHW=image_BCHW, seeds=tuple(seeds), passes_B=(1,) * len(seeds))


@EMBEDDERS.register("blocks")
class BlocksEmbedder:
    """The judge: projects the blocks back onto the pattern's basis."""

    name, dim, differentiable = "blocks", DIM, True

    def __call__(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        check("image_BCHW", image_BCHW, "B 3 112 112")
        block_BX = torch.nn.functional.avg_pool2d(image_BCHW, 8).flatten(1)
        return torch.nn.functional.normalize(block_BX @ _PIXELS)


def job_file(folder: Path, **changes: str) -> Path:
    """Write a small job file, 6 identities × 4 images in 3 shards, with `a__b="yaml"` laid over it; return its path."""
    lines = {
        "name": "small", "seed": "3", "identities": "{source: file, file: anchors.npy, count: 6}", "per_identity": "4", "generator": "{name: procedural}",
        "judge": "blocks", "filters": "[{name: sdd_fiqa, lowest_share: 0.2}]", "writer": "{shard_identities: 2}", "engine": "{batch: 3, lease_s: 5}",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    anchor_ID = np.random.default_rng(0).normal(size=(6, DIM)).astype(np.float32)
    np.save(folder / "anchors.npy", anchor_ID / np.linalg.norm(anchor_ID, axis=1, keepdims=True))
    path = folder / "job.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (lines | changes).items()))
    return path


def snapshot(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file a finished dataset consists of."""
    files = [path for part in ("data", "rejected") for path in (folder / part).glob("*")]
    return {str(path.relative_to(folder)): sha256_file(path) for path in (*files, folder / "README.md", folder / "manifest.json", folder / "contact_sheet.png")}


if __name__ == "__main__":
    from facefoundry.jobs.cli import main

    main()
