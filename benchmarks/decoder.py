"""Two decoders on the same latents: what comes back of faces, what a sampler's latents become, and the time.

Run: `python benchmarks/decoder.py --old BEFORE.safetensors --new AFTER.safetensors --work FOLDER` (about 8 minutes on one core, most of it minting latents and dlib's
embeddings; both are kept in FOLDER and a killed run goes on there). `--faces-count 40 --per-generator 16` for a look.

- faces: real ones that no training of ours saw (LFW folds 7-8); psnr_db of the 8-bit picture; laplacian: deviation of the luminance's Laplacian, 0..255, mean over faces;
  grid: how unevenly the Laplacian's size lies over the 7 places of a patch, 0 = no patch to be seen; cosine of dlib's embeddings of face and picture, with the standard error of the paired difference old to new.
- minted: latents of UIFace (UniPC 12) and of ID³ for people of the anchor prior, made once; cosine of dlib's embedding to the anchor.
- fid_*: Fréchet distance to the faces (reconstructions) or to a sample of train112 (minted), in features of "mobilefacenet-small" (pooled last map) and of
  "dlib" (its embedding). None is an Inception FID. A decoder trained with a perceptual term has been shown the first network, so dlib's is the fairer.
  floor: the same distance from as many other real training faces. Small sets are biased upwards: rows compare with each other alone.
- decode_ms: a face, fp32, batch 32, fastest of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facefoundry.core.files import bundled, sha256_file, weights_path, write_json
from facefoundry.core.images import to_float, to_uint8
from facefoundry.core.progress import track
from facefoundry.generators.id3 import ID3Config, ID3Sampler
from facefoundry.generators.train import load_autoencoder
from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler
from facefoundry.identity.anchors import AnchorPrior, sample_anchors
from facefoundry.identity.sources import load_faces
from facefoundry.quality.baselines import sharpness
from facefoundry.quality.frechet import fid
from facefoundry.quality.perceptual import pooled
from facefoundry.recognition.embedder import load_embedder
from facefoundry.recognition.feature_maps import MobileFaceNetMaps

FACES = Path(__file__).parents[2] / "shared" / "data" / "faces"
GENERATORS = {
    "uiface": UIFaceConfig(sampler=UIFaceSampler(solver="unipc", steps=12, t_max=700, guidance=4.5, rescale=0.7)),
    "id3": ID3Config(sampler=ID3Sampler(solver="unipc", steps=12, guidance=1, rescale=0.7, gradient="none")),
}
PER_PERSON, BATCH, ROUNDS, PATCH = 2, 32, 5, 7


class Recorder:
    """In the place of an autoencoder: keeps the latents it is asked to decode."""

    def __init__(self, latent_shape: tuple[int, int, int]) -> None:
        self.latent_shape, self.held = latent_shape, []

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        self.held.append(latent_BCHW.float().numpy().copy())
        return latent_BCHW.new_zeros(len(latent_BCHW), 3, 112, 112)


def minted_latents(name: str, count: int, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return latents (M, C, h, w) and their anchors (M, D), made once for these weights and settings."""
    config = GENERATORS[name]
    path = work / f"{name}-{count}-{sha256_file(weights_path(config.denoiser))[:12]}.npz"
    if path.is_file():
        held = np.load(path)
        return held["latent"], held["anchor"]
    prior = AnchorPrior.load(bundled("anchor-prior.safetensors"))
    anchor_MD = np.repeat(sample_anchors(prior, -(-count // PER_PERSON), seed=0, max_cosine=0.3), PER_PERSON, 0)[:count]
    generator = config.build(torch.device("cpu"))
    generator.autoencoder = recorder = Recorder(generator.autoencoder.latent_shape)
    for begin in track(range(0, count, BATCH), f"latents of {name}"):
        rows = anchor_MD[begin : begin + BATCH]
        generator.generate(rows, range(begin, begin + len(rows)))
    latent_MCHW = np.concatenate(recorder.held)
    np.savez(path, latent=latent_MCHW, anchor=anchor_MD)
    return latent_MCHW, anchor_MD


class Judges:
    """Features of both networks, and figures made of them."""

    def __init__(self) -> None:
        self._eyes, self._dlib = MobileFaceNetMaps(), load_embedder("dlib")

    def features(self, image_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Network → rows of uint8 faces."""
        parts = [to_float(image_NHWC[begin : begin + BATCH]) for begin in range(0, len(image_NHWC), BATCH)]
        maps = np.concatenate([pooled(self._eyes.maps(part)) for part in parts])
        return {"mobilefacenet-small": maps, "dlib": np.concatenate([self._dlib(part).numpy() for part in track(parts, "dlib")])}

    def kept(self, image_NHWC: np.ndarray, path: Path) -> dict[str, np.ndarray]:
        """`features` of faces that do not change from run to run, kept in a file."""
        if not path.is_file():
            np.savez(path, **self.features(image_NHWC))
        return dict(np.load(path))


def fids(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, float]:
    return {f"fid_{name}": fid(found[name], wanted[name]) for name in found}


def looks(image_NHWC: np.ndarray) -> dict[str, float]:
    """Sharpness, and how visible the patches are."""
    return {"laplacian": float(np.sqrt(sharpness(image_NHWC)).mean()), "grid": grid(image_NHWC)}


def grid(image_NHWC: np.ndarray) -> float:
    """Greatest over least mean size of the Laplacian among the columns' places in their patch, less 1; the mean of that for columns and for rows."""
    grey_NHW = image_NHWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    size_HW = np.abs(sum(np.roll(grey_NHW, shift, axis) for axis in (1, 2) for shift in (-1, 1)) - 4 * grey_NHW).mean(0)[PATCH:-PATCH, PATCH:-PATCH]
    places = [size_HW.mean(axis).reshape(-1, PATCH).mean(0) for axis in (0, 1)]
    return float(np.mean([place.max() / place.min() - 1 for place in places]))


@torch.inference_mode()
def decoded(network: Any, latent_MCHW: Tensor) -> np.ndarray:
    """Latents → uint8 faces."""
    return np.concatenate([to_uint8(network.decode(part)) for part in latent_MCHW.split(BATCH)])


def of_faces(network: Any, face_NHWC: np.ndarray, seen: dict[str, np.ndarray], judges: Judges) -> tuple[dict[str, float], np.ndarray]:
    """Figures of the reconstructions, and each one's cosine to its face."""
    with torch.inference_mode():
        picture_NHWC = decoded(network, network.encode(to_float(face_NHWC)))
    found = judges.features(picture_NHWC)
    error_N = ((picture_NHWC.astype(np.float64) - face_NHWC) ** 2).mean((1, 2, 3)).clip(1e-6)
    cosine_N = (found["dlib"] * seen["dlib"]).sum(1)
    return {"psnr_db": float((10 * np.log10(255**2 / error_N)).mean()), **looks(picture_NHWC), "cosine": float(cosine_N.mean()), **fids(found, seen)}, cosine_N


def of_minted(network: Any, made: dict[str, tuple[np.ndarray, np.ndarray]], reference: dict[str, np.ndarray], judges: Judges) -> dict[str, tuple[dict[str, float], np.ndarray]]:
    """Generator (and "all") → figures of its faces, and each one's cosine to its anchor."""
    pictures = {name: decoded(network, torch.from_numpy(latent_MCHW)) for name, (latent_MCHW, _) in made.items()}
    found = {name: judges.features(picture_MHWC) for name, picture_MHWC in pictures.items()}
    cosines = {name: (found[name]["dlib"] * anchor_MD).sum(1) for name, (_, anchor_MD) in made.items()}
    pictures["all"], cosines["all"] = np.concatenate(list(pictures.values())), np.concatenate(list(cosines.values()))
    found["all"] = {judge: np.concatenate([rows[judge] for rows in found.values()]) for judge in reference}
    return {name: ({**looks(picture), "cosine": float(cosines[name].mean()), **fids(found[name], reference)}, cosines[name]) for name, picture in pictures.items()}


def decode_ms(networks: dict[str, Any]) -> dict[str, float]:
    """Milliseconds a face, the fastest of interleaved rounds."""
    latent_BCHW, best = torch.randn(BATCH, *next(iter(networks.values())).latent_shape), {name: float("inf") for name in networks}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, network in networks.items():
                start = time.perf_counter()
                network.decode(latent_BCHW)
                best[name] = min(best[name], (time.perf_counter() - start) * 1e3 / BATCH)
    return best


def against(old: tuple[dict[str, float], np.ndarray], new: tuple[dict[str, float], np.ndarray]) -> dict[str, Any]:
    """Both sides' figures, and the paired difference of the cosines with its standard error."""
    gap_N = new[1] - old[1]
    return {"old": old[0], "new": new[0], "cosine_change": float(gap_N.mean()), "cosine_change_se": float(gap_N.std(ddof=1) / len(gap_N) ** 0.5)}


def evenly(image_NHWC: np.ndarray, count: int, offset: float = 0.0) -> np.ndarray:
    """`count` images at equal distances; `offset` in distances gives others."""
    return image_NHWC[((np.arange(count) + offset) * len(image_NHWC) / count).astype(int)]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    options.work.mkdir(parents=True, exist_ok=True)
    networks = {side: load_autoencoder(weights_path(str(getattr(options, side)))) for side in ("old", "new")}
    same = all(torch.equal(getattr(networks["old"], name), getattr(networks["new"], name)) for name in ("mean", "basis", "scale"))
    judges, training_NHWC = Judges(), load_faces(options.training).image_NHWC
    face_NHWC = evenly(load_faces(options.faces).image_NHWC, options.faces_count)
    seen = judges.kept(face_NHWC, options.work / f"faces-{options.faces_count}.npz")
    reference = judges.kept(evenly(training_NHWC, options.reference), options.work / f"reference-{options.reference}.npz")
    minted = options.per_generator * len(GENERATORS)
    others = judges.kept(evenly(training_NHWC, minted, 0.5), options.work / f"floor-{minted}.npz")
    made = {name: minted_latents(name, options.per_generator, options.work) for name in GENERATORS}
    sides = [of_minted(network, made, reference, judges) for network in networks.values()]
    return {
        "latents_same": same, "sha256": {side: sha256_file(weights_path(str(getattr(options, side)))) for side in networks},
        "faces": {"count": len(face_NHWC), "real": looks(face_NHWC), **against(*(of_faces(network, face_NHWC, seen, judges) for network in networks.values()))},
        "minted": {
            "count": minted, "reference": options.reference, "floor": fids(others, reference),
            **{name: against(*(side[name] for side in sides)) for name in sides[0]},
        },
        "decode_ms": decode_ms(networks), "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="bundled name or path of weights")
    parser.add_argument("--new", default="autoencoder-small", help="the same")
    parser.add_argument("--work", type=Path, required=True, help="folder of cached latents and features")
    parser.add_argument("--faces", type=Path, default=FACES / "lfw_folds7_8.zip")
    parser.add_argument("--training", type=Path, default=FACES / "train112.zip")
    parser.add_argument("--faces-count", type=int, default=300)
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument("--per-generator", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_decoder.json"))
    options = parser.parse_args()
    result = measure(options)
    write_json(options.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
