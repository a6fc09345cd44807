"""ID³'s guidance against the distance to real faces: the sweep in docs/training-log.md that chose the demo's sampler.

    python benchmarks/guidance.py --judge real.safetensors 1 0.7 1.2:rising 1.3:rising [--denoiser id3-small] [--out rows.json]

250 people × 4 from the same anchors and noises for every row, nothing filtered, two minutes a row and core. Fréchet and kernel distance to 2,000 faces of train112 in the features of a
recogniser that never saw an embedding of dlib's, and of mobilefacenet-small, which guided the training. Axes: N images, I identities.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from honest_sides import DATA

from facefoundry.core.files import bundled, write_json
from facefoundry.core.images import to_uint8
from facefoundry.core.seeds import numpy_rng
from facefoundry.generators.id3 import ID3, ID3Config, ID3Sampler
from facefoundry.identity.anchors import AnchorPrior, sample_anchors
from facefoundry.identity.sources import load_faces
from facefoundry.quality.features import Features
from facefoundry.quality.frechet import fid, kid
from facefoundry.quality.metrics import dataset_figures
from facefoundry.recognition.embedder import embed_faces, load_embedder

EACH, BATCH = 4, 20


def sampler(text: str) -> ID3Sampler:
    """Read "1.3:rising": w, and how it goes over time."""
    guidance, _, over_time = text.partition(":")
    return ID3Sampler(solver="unipc", steps=10, rescale=0.7, gradient="none", guidance=float(guidance), guidance_over_time=over_time or "constant")


def faces_of(generator: ID3, anchor_ND: np.ndarray) -> np.ndarray:
    """Return one image of each row, uint8 (N, 112, 112, 3); the noise is the row's own."""
    starts = range(0, len(anchor_ND), BATCH)
    return np.concatenate([to_uint8(generator.generate(anchor_ND[start : start + BATCH], range(5000 + start, 5000 + min(start + BATCH, len(anchor_ND)))).image_BCHW) for start in starts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guidance", nargs="+", help="w, or w:rising, w:falling")
    parser.add_argument("--judge", type=Path, required=True, help="recogniser that dlib never taught (benchmarks/targets.py trains one under its --work)")
    parser.add_argument("--denoiser", default="id3-small", help="bundled name or path")
    parser.add_argument("--people", type=int, default=250)
    parser.add_argument("--real", type=Path, default=DATA / "train112.zip")
    parser.add_argument("--out", type=Path, help="JSON of the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, rows = options.people * EACH, {}
    anchor_ND = np.repeat(sample_anchors(AnchorPrior.load(bundled("anchor-prior.safetensors")), options.people, seed=77), EACH, axis=0)
    identity_N, dlib = np.repeat(np.arange(options.people), EACH), load_embedder("dlib")
    eyes = {"independent": Features(load_embedder(str(options.judge))), "mobilefacenet-small": Features(load_embedder("mobilefacenet-small"))}
    real_NHWC = load_faces(options.real).image_NHWC
    drawn = numpy_rng(0, "guidance").permutation(len(real_NHWC))
    base = {name: see(real_NHWC[drawn[:2000]]).penultimate_NF for name, see in eyes.items()}

    def distances(image_NHWC: np.ndarray) -> dict[str, float]:
        found = {name: see(image_NHWC).penultimate_NF for name, see in eyes.items()}
        return {f"fid {name}": fid(found[name], base[name]) for name in eyes} | {f"kid {name}": kid(found[name], base[name])[0] for name in eyes}

    rows["other real faces"] = distances(real_NHWC[drawn[2000 : 2000 + count]])
    for text in options.guidance:
        generator = ID3Config(denoiser=options.denoiser, autoencoder="autoencoder-sharp", sampler=sampler(text)).build(torch.device("cpu"))
        image_NHWC = faces_of(generator, anchor_ND)
        figures = dataset_figures(embed_faces(dlib, image_NHWC), identity_N, threshold=0.58, anchor_ND=anchor_ND)
        rows[text] = {key: getattr(figures, key) for key in ("anchor_cosine", "auc", "mated_mean", "fnmr_at_fmr_1pct")} | distances(image_NHWC)
        print(text, json.dumps(rows[text]), flush=True)
        if options.out:
            write_json(options.out, rows)


if __name__ == "__main__":
    main()
