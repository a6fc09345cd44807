"""What the denoiser is asked to say and how its errors are weighed: ε, v, flow, min-SNR, focused times, at equal cost on held-out people.

Run: `python benchmarks/training_options.py --data ../shared/data/faces/train112.zip --work runs/options`. A family U-Net of half the bundled width; the
same steps, rows, noise and seeds for every row. The measure is the same for all: the root mean square error of the clean latent, which every prediction
implies, at five noise levels on people left out of the training (latents have unit variance: 1 is knowing nothing).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from facefoundry.core.files import bundled, write_json
from facefoundry.core.seeds import derive_seed, noise
from facefoundry.core.training import LoopConfig
from facefoundry.core.weights import load_into, load_weights
from facefoundry.generators.prediction import to_clean
from facefoundry.generators.schedule import add_noise, alpha_bars
from facefoundry.generators.train import DenoiserRecipe, cached_latents, load_autoencoder, train_denoiser
from facefoundry.generators.unet import FamilyUNet, UNetConfig
from facefoundry.identity.sources import load_faces
from facefoundry.recognition.embedder import embed_faces, load_embedder

LEVELS = (100, 300, 500, 700, 900)
ROWS: dict[str, dict] = {
    "ε, uniform t (published)": {"prediction": "epsilon"},
    "ε, min-SNR 5": {"prediction": "epsilon", "min_snr": 5.0},
    "v, uniform t": {"prediction": "v"},
    "v, min-SNR 5": {"prediction": "v", "min_snr": 5.0},
    "v, focused t": {"prediction": "v", "focus": 0.75},
    "flow, uniform t": {"prediction": "flow"},
    "flow, focused t": {"prediction": "flow", "focus": 0.75},
}


def recipe(change: dict, steps: int, seed: int) -> DenoiserRecipe:
    network = UNetConfig(
        channels=16, width=32, multipliers=(1, 2, 2), attention=(False, True, True), blocks=1, identity_dim=128, context_dim=128, tokens=16,
        context_dropout=0.1, identity_scale=11.3, context_in_time=True, prediction=change["prediction"],
    )
    loop = LoopConfig(steps=steps, batch=64, optimiser="adamw", lr=1e-3, warmup=0.05, weight_decay=0, clip=1, ema=True, precision="bf16", seed=seed)
    return DenoiserRecipe(network=network, loop=loop, focus=change.get("focus", 0.0), min_snr=change.get("min_snr", 0.0))


@torch.inference_mode()
def clean_errors(path: Path, latent_MCHW: np.ndarray, embed_ND: np.ndarray) -> list[float]:
    """Root mean square error of the clean latent at each of LEVELS."""
    tensors, config, _ = load_weights(path, kind="denoiser")
    network = FamilyUNet(UNetConfig.parse(config, source=str(path))).eval()
    load_into(network, tensors, path)
    clean_BCHW = torch.from_numpy(np.asarray(latent_MCHW[: len(embed_ND)], np.float32))
    context_BD, found = network.embed_context(torch.from_numpy(embed_ND)), []
    for level in LEVELS:
        t_B = torch.full((len(clean_BCHW),), level)
        noisy_BCHW = add_noise(clean_BCHW, noise([derive_seed(level, n) for n in range(len(clean_BCHW))], tuple(clean_BCHW.shape[1:])), t_B)
        guess_BCHW = to_clean(network.config.prediction, network(noisy_BCHW, t_B, context_BD), noisy_BCHW, float(alpha_bars()[level]))
        found.append(float((guess_BCHW - clean_BCHW).square().mean().sqrt()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/options"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--held-out", type=int, default=400, help="people left out of the training")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_training_options.json"))
    options = parser.parse_args()
    faces = load_faces(options.data)
    embed_ND = embed_faces(load_embedder("dlib"), faces.image_NHWC)
    out_N = faces.identity_N >= len(faces.names) - options.held_out
    autoencoder = bundled("autoencoder-small.safetensors")
    held_latents = cached_latents(load_autoencoder(autoencoder), faces.image_NHWC[out_N], options.work / "held.npy")
    rows = {}
    for name, change in ROWS.items():
        errors = []
        for seed in range(options.seeds):
            folder = options.work / f"{list(ROWS).index(name)}-{seed}"
            path = train_denoiser(recipe(change, options.steps, seed), faces.image_NHWC[~out_N], embed_ND[~out_N], autoencoder, folder)
            errors.append(clean_errors(path, held_latents, embed_ND[out_N]))
        rows[name] = {"mean": np.mean(errors, 0).tolist(), "range_over_seeds": np.ptp(errors, axis=0).tolist()}
        print(name, rows[name], flush=True)
    write_json(options.out, {"levels": LEVELS, "steps": options.steps, "batch": 64, "seeds": options.seeds, "held_out_faces": int(out_N.sum()), "rows": rows})


if __name__ == "__main__":
    main()
