"""What a trained tokenizer and its token model are worth, from the folder of one training: reconstruction and use of the books on held-out faces, gFID of drawn faces.

Run: `python benchmarks/glotok.py runs/glotok --held LFW_FOLDER --trained train112.zip` (about two minutes on one core); writes benchmarks/results_glotok.json.

FID and perceptual distance are of mobilefacenet-small's features (neither Inception's nor LPIPS), always of the same number of faces. For scale stand beside gFID:
the distance between held-out faces and as many faces of the training data (what perfect samples would get), and rFID (the tokenizer's own share). Identity:
cosine of a drawn face to the mean of its person's real ones, and to another person's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from facefoundry.consumers.tokenizer.autoregressive import sample_faces
from facefoundry.consumers.tokenizer.autoregressive_train import tokens_of
from facefoundry.consumers.tokenizer.figures import features, measure
from facefoundry.consumers.tokenizer.glotok import BOOKS, GloTok
from facefoundry.consumers.tokenizer.histogram_relation import histogram_relation_loss
from facefoundry.consumers.tokenizer.usage import density_uniformity, usage
from facefoundry.core.errors import UserError
from facefoundry.core.files import write_json
from facefoundry.core.images import to_float, to_uint8
from facefoundry.core.seeds import derive_seed, numpy_rng
from facefoundry.identity.sources import Faces, load_faces
from facefoundry.jobs import show
from facefoundry.jobs.tokenizer_sample import TrainedRun, load_run
from facefoundry.quality.frechet import fid
from facefoundry.recognition.embedder import MobileFaceNetSmall, embed_faces


def main() -> None:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of `facefoundry tokenizer train`")
    parser.add_argument("--held", type=Path, default=Path("../shared/data/faces/lfw_folds7_8.zip"), help="faces of people it was not trained on")
    parser.add_argument("--trained", type=Path, default=Path("../shared/data/faces/train112.zip"), help="the faces it was trained on")
    parser.add_argument("--images", type=int, default=400, help="held-out faces, and faces drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results_glotok.json")
    args = parser.parse_args()
    run, trained = load_run(args.run), load_faces(args.trained)
    if run.classes and run.classes != trained.names:
        raise UserError(f"{args.trained} holds {len(trained.names)} people, others than the {len(run.classes)} that the model of {args.run} was trained on; pass its training faces as --trained")
    held_NHWC = some(load_faces(args.held), args.images, args.seed)
    found = measure(lambda image_BCHW: run.tokenizer.decode(run.tokenizer.encode(image_BCHW)), held_NHWC)
    figures = {
        "images": len(held_NHWC), "held": args.held.name, "trained": args.trained.name, "features": "mobilefacenet-small", "tokenizer": run.tokenizer.config.model_dump(mode="json"),
        "steps": {"tokenizer": last_step(args.run), "model": last_step(args.run / "model")}, "reconstruction": found.summary(),
        "books": books(run.tokenizer, held_NHWC), "histogram": histogram(args.run, run.tokenizer), "generation": generation(run, trained, found.real_NF, args.seed),
    }  # fmt: skip
    write_json(args.out, figures)
    show.table([(f"{part}: {name}", value) for part in ("reconstruction", "generation", "histogram") for name, value in figures[part].items()], title=str(args.run))
    show.table([(f"{book}: {name}", value) for book, values in figures["books"].items() for name, value in values.items()])


def some(faces: Faces, count: int, seed: int) -> np.ndarray:
    """So many faces drawn by a seed, in their order."""
    return faces.image_NHWC[np.sort(numpy_rng(seed, "some").permutation(len(faces))[:count])]


@torch.inference_mode()
def books(tokenizer: GloTok, held_NHWC: np.ndarray) -> dict[str, dict[str, float]]:
    """Use of each book by the held-out faces, and how evenly the encoder's outputs lie (bandwidth and seed stand in usage.py)."""
    token_N2HW = tokens_of(tokenizer, held_NHWC)
    code_NDHW = torch.cat([tokenizer.codes(to_float(held_NHWC[begin : begin + 64])) for begin in range(0, len(held_NHWC), 64)])
    values = {}
    for number, (name, part_NDHW) in enumerate(zip(BOOKS, code_NDHW.chunk(2, 1))):
        density = density_uniformity(part_NDHW.movedim(1, -1).flatten(0, 2).numpy())
        rows = len(tokenizer.rows(number))
        values[name] = {"rows": rows, **asdict(usage(token_N2HW[:, number], rows)), **{f"density {key}": value for key, value in density.items()}}
    return values


@torch.inference_mode()
def histogram(folder: Path, tokenizer: GloTok) -> dict[str, float]:
    """L_hist of the whole semantic book against the teacher's: of rows drawn at random, at its highest in the log, and of the finished book."""
    teacher_KD = torch.from_numpy(np.load(max(folder.glob("teacher-*.npy"), key=lambda path: path.stat().st_mtime)))
    rows_KD = tokenizer.rows(0)
    chance_KD = torch.randn(rows_KD.shape, generator=torch.Generator().manual_seed(0))
    logged = [line["histogram"] for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "histogram" in line]
    return {"random rows": float(histogram_relation_loss(chance_KD, teacher_KD)), "highest logged": max(logged, default=float("nan")), "trained": float(histogram_relation_loss(rows_KD, teacher_KD))}


def generation(run: TrainedRun, trained: Faces, held_NF: np.ndarray, seed: int) -> dict[str, Any]:
    """gFID of faces drawn as often a class as the training data has them, its scale, and whether they are who they should be."""
    chosen_N = numpy_rng(seed, "classes").integers(0, len(trained), len(held_NF))
    label_N = trained.identity_N[chosen_N]
    drawn_NHWC = to_uint8(sample_faces(run.model, run.tokenizer, label_N.tolist(), [derive_seed(seed, "drawn", number) for number in range(len(label_N))]))
    eyes = MobileFaceNetSmall()
    drawn_ND = torch.from_numpy(embed_faces(eyes, drawn_NHWC))
    centre_ND = F.normalize(torch.stack([torch.from_numpy(embed_faces(eyes, trained.image_NHWC[trained.identity_N == label][:10])).mean(0) for label in label_N[:100]]), dim=1)
    own = (drawn_ND[: len(centre_ND)] * centre_ND).sum(1)
    other = (drawn_ND[: len(centre_ND)] * centre_ND.roll(1, 0)).sum(1)[torch.from_numpy(label_N[: len(centre_ND)] != np.roll(label_N[: len(centre_ND)], 1))]
    return {
        "gfid": fid(held_NF, features(drawn_NHWC)), "fid of training faces": fid(held_NF, features(trained.image_NHWC[chosen_N])),
        "cosine to own person": float(own.mean()), "cosine to another": float(other.mean()),
    }  # fmt: skip


def last_step(folder: Path) -> int:
    """Steps done, by the log."""
    return 1 + int(json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"])


if __name__ == "__main__":
    main()
