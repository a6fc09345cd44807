"""UIFace sampling on this machine: the published procedure, the exact one without its waste, and the fast ones; speed, identity, diversity.

Run: `python benchmarks/sampling.py` (about 20 minutes on 2 cores); `--identities 4 --per-identity 2 --rounds 1` for a look. All rows are
measured in this process, in interleaved rounds, the fastest counts; all make the same people from the same seeds, so that their
figures differ by the sampler alone.

- published: the public code's procedure: every pass, its shifted ᾱ, fp32. (Generous: attention still runs fused, in one 2B batch.)
- identity: mean cosine of dlib's embedding to the anchor; `se` is the standard error of its paired difference to the exact row.
- mated: mean cosine between two images of one person.
- diversity: mean distance between two images of one person in a 16×16 grid of mean colours (7×7 px): light, hair, background, pose; no
  identity feature. `layout` is the same with every image brought to mean 0 and spread 1, since a sampler that raises contrast raises
  every distance between pixels.
- over published, CPU: the same ratio in CPU seconds, which a busy machine disturbs less than the clock.
- floor: the network's multiply-adds over the measured rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facefoundry.core.files import bundled, write_json
from facefoundry.core.types import FaceBatch
from facefoundry.generators.cache import forward_macs
from facefoundry.generators.uiface import UIFace, UIFaceConfig, UIFaceSampler
from facefoundry.identity.anchors import AnchorPrior, sample_anchors
from facefoundry.recognition.embedder import load_embedder

SETTINGS = {"published": {}, "demo": {"t_max": 700, "guidance": 4.5, "rescale": 0.7}}
"""The paper's values, and what the bundled network needs (recipes/demo-job.yaml)."""


CHEAP_GAINS: tuple[tuple[str, Any], ...] = (("cone", 0.8), ("cone", 0.6), ("negative", 0.5), ("guidance_over_time", "rising"), ("guidance_over_time", "falling"))


def table_rows(base: dict[str, Any]) -> dict[str, tuple[str, UIFaceSampler]]:
    """Name → (precision, sampler)."""

    def row(precision: str = "bf16", **settings: Any) -> tuple[str, UIFaceSampler]:
        return precision, UIFaceSampler(**{**base, **settings})

    rows = {
        "published": row("fp32", solver="ddim-published", skip_duplicates=False),
        "published, known passes left out": row("fp32", solver="ddim-published"),
        "exact": row("fp32"),
        "exact, bf16": row(),
        "exact, bf16, one stage": row(t_max=1000),
        "exact, bf16, cache 2": row(cache=2),
        "exact, bf16, cache 3": row(cache=3),
    }
    for solver in ("dpm++", "unipc"):
        rows |= {f"{solver} {steps}, bf16": row(solver=solver, steps=steps) for steps in (20, 15, 12, 10)}
    rows |= {f"unipc {steps}, bf16, cache {cache}": row(solver="unipc", steps=steps, cache=cache) for steps in (20, 15) for cache in (2, 3)}
    rows |= {f"unipc 12, bf16, {key} {value}": row(**{"solver": "unipc", "steps": 12, key: value}) for key, value in CHEAP_GAINS}
    return rows


class TimedDecoder:
    """An autoencoder that books the seconds its decoder takes."""

    def __init__(self, autoencoder: Any) -> None:
        self.inner, self.latent_shape, self.seconds = autoencoder, autoencoder.latent_shape, 0.0

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        start = time.perf_counter()
        image_BCHW = self.inner.decode(latent_BCHW)
        self.seconds += time.perf_counter() - start
        return image_BCHW


@dataclass(frozen=True, kw_only=True)
class Run:
    """All images of one row, made once: seconds by the clock, of the CPU, and in the decoder."""

    seconds: float
    cpu_s: float
    decoder_s: float
    faces: FaceBatch


def mint(generator: UIFace, sampler: UIFaceSampler, anchor_BD: np.ndarray, batch: int) -> Run:
    """Make a face for every row; seeds count the rows."""
    decoder = generator.autoencoder = TimedDecoder(getattr(generator.autoencoder, "inner", generator.autoencoder))
    generator.sampler, parts, start, cpu = sampler, [], time.perf_counter(), time.process_time()
    for first in range(0, len(anchor_BD), batch):
        rows = anchor_BD[first : first + batch]
        parts.append(generator.generate(rows, range(first, first + len(rows))))
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    images, passes = torch.cat([part.image_BCHW for part in parts]), tuple(passes for part in parts for passes in part.passes_B)
    faces = FaceBatch(image_BCHW=images, seeds=tuple(range(len(anchor_BD))), passes_B=passes)
    return Run(seconds=seconds, cpu_s=cpu_s, decoder_s=decoder.seconds, faces=faces)


def spread_within(feature_BD: Tensor, per_identity: int) -> float:
    """Mean distance between two images of one person."""
    return float(torch.stack([F.pdist(rows).mean() for rows in feature_BD.split(per_identity)]).mean())


def judged(image_BCHW: Tensor, embed_BD: np.ndarray, anchor_BD: np.ndarray, reference_B: np.ndarray, per_identity: int) -> dict[str, float]:
    cosine_B, embed_IKD = (embed_BD * anchor_BD).sum(1), embed_BD.reshape(-1, per_identity, embed_BD.shape[1])
    pairs = np.triu_indices(per_identity, 1)
    mated = float(np.mean([(rows_KD @ rows_KD.T)[pairs].mean() for rows_KD in embed_IKD]))
    grid_BD = F.avg_pool2d(image_BCHW, 7).flatten(1)
    layout_BD = (grid_BD - grid_BD.mean(1, keepdim=True)) / grid_BD.std(1, keepdim=True)
    return {
        "cosine": float(cosine_B.mean()), "cosine_se": float((cosine_B - reference_B).std() / len(cosine_B) ** 0.5),
        "mated": mated, "diversity": spread_within(grid_BD, per_identity), "layout": spread_within(layout_BD, per_identity),
    }


def matrix_rate(dtype: torch.dtype, size: int = 3072) -> float:
    """Measured multiply-adds a second of a square matrix product."""
    a = torch.randn(size, size).to(dtype)
    return size**3 / min(_seconds(lambda: a @ a) for _ in range(5))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=16)
    parser.add_argument("--per-identity", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--settings", choices=list(SETTINGS), default="demo")
    parser.add_argument("--denoiser", default="uiface-small", help="bundled name or path of weights")
    parser.add_argument("--only", nargs="*", help="names of rows to measure; published and exact always are")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_sampling.json"))
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    prior = AnchorPrior.load(bundled("anchor-prior.safetensors"))
    anchor_BD = np.repeat(sample_anchors(prior, options.identities, seed=0, max_cosine=0.2), options.per_identity, 0)
    generators = {p: UIFaceConfig(precision=p, denoiser=options.denoiser).build(torch.device("cpu")) for p in ("fp32", "bf16")}
    rows = table_rows(SETTINGS[options.settings])
    if options.only:
        rows = {name: row for name, row in rows.items() if name in ("published", "published, known passes left out", "exact", "exact, bf16", *options.only)}
    best: dict[str, Run] = {}
    for _ in range(options.rounds):
        for name, (precision, sampler) in rows.items():
            run = mint(generators[precision], sampler, anchor_BD, options.batch)
            if name not in best or run.seconds < best[name].seconds:  # the same images every round
                best[name] = run
    embedder = load_embedder("dlib")
    images = {name: run.faces.image_BCHW for name, run in best.items()}
    embeds = {name: embedder(image_BCHW).numpy() for name, image_BCHW in images.items()}
    reference_B = (embeds["exact"] * anchor_BD).sum(1)
    published = best["published"]
    table = {
        name: {
            "images_per_s": len(anchor_BD) / run.seconds, "over_published": published.seconds / run.seconds,
            "cpu_over_published": published.cpu_s / run.cpu_s, "passes": float(np.mean(run.faces.passes_B)), "decoder_share": run.decoder_s / run.seconds,
            **judged(images[name], embeds[name], anchor_BD, reference_B, options.per_identity),
        }
        for name, run in best.items()
    }
    network = generators["fp32"].network.config
    size = generators["fp32"].autoencoder.latent_shape[1:]
    macs = forward_macs(network, tuple(size))
    return {
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
        "identities": options.identities, "per_identity": options.per_identity, "batch": options.batch, "settings": options.settings,
        "rounds": options.rounds, "rows": table, "order": list(rows), "gmac_per_pass": macs / 1e9,
        "largest_pixel_difference_known_passes": _largest(images["published"], images["published, known passes left out"]),
        "mean_pixel_difference_bf16": float((images["exact"] - images["exact, bf16"]).abs().mean()),
        "floor_images_per_s": {
            "exact": matrix_rate(torch.float32) / (macs * table["exact"]["passes"]),
            "exact, bf16": matrix_rate(torch.bfloat16) / (macs * table["exact, bf16"]["passes"]),
        },
    }


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def main() -> None:
    options = parsed()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    result = measure(options)
    write_json(options.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
