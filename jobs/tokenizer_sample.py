"""What the verb `tokenizer sample` does: people and faces drawn from the model over a tokenizer's tokens, as a dataset folder.

A class of the model is an identity of the faces it was trained on: its faces are new pictures, its people are not new people; the card says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..consumers.tokenizer.autoregressive import TokenModel, load_token_model, sample_faces
from ..consumers.tokenizer.autoregressive_train import RESULT as MODEL
from ..consumers.tokenizer.glotok import GloTok, load_glotok
from ..consumers.tokenizer.train import RESULT as TOKENIZER
from ..core.errors import UserError
from ..core.files import sha256_file
from ..core.images import encode_png, to_uint8
from ..core.progress import bar
from ..core.seeds import derive_seed, numpy_rng
from ..identity.dataset import finalise
from ..identity.records import FaceRecord
from ..identity.shards import ShardWriter
from .contact_sheet import write_sheet
from .tokenizer import must_be_new

BATCH = 64

WORDS = {
    "summary": "Faces drawn by a model over a tokenizer's tokens: new pictures of the identities it was trained on, not new people.",
    "training_data": "the faces the tokenizer and the model were trained on; each identity here is one of theirs (column `source`)",
    "leakage": "by construction each identity is one of the training data",
    "consent": "These are computed pictures of the people the model was trained on. If those are real, this is data about them: do not publish it without their consent.",
}
"""What the card says in place of the usual sentences on made faces, whose people are nobody."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How tokens are drawn: see `TokenModel.sample`."""

    seed: int = 0
    top_k: int = 100
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """What `tokenizer train` left: tokenizer, model, the model's class names (may be empty), and the two files' hashes."""

    tokenizer: GloTok
    model: TokenModel
    classes: tuple[str, ...]
    tokenizer_sha256: str
    model_sha256: str


def load_run(run: Path) -> TrainedRun:
    """Load the folder that `tokenizer train` wrote, or the glotok.safetensors in it.

    Raises:
        UserError: no token model beside the tokenizer, or one of another tokenizer.
    """
    folder = run.parent if run.is_file() else run
    tokenizer, _ = load_glotok(folder / TOKENIZER)
    path = folder / "model" / MODEL
    if not path.is_file():
        raise UserError(f"{folder} has no model over the tokens ({path} is missing); train one: the key `model` in the file of facefoundry tokenizer train")
    model, facts = load_token_model(path)
    made_by = sha256_file(folder / TOKENIZER)
    if facts.get("tokenizer_sha256") != made_by:
        raise UserError(f"{path} was trained over another tokenizer ({str(facts.get('tokenizer_sha256'))[:12]}…) than {folder / TOKENIZER} ({made_by[:12]}…); train it again: facefoundry tokenizer train")
    return TrainedRun(tokenizer=tokenizer, model=model, classes=tuple(facts.get("classes", ())), tokenizer_sha256=made_by, model_sha256=sha256_file(path))


def sample_dataset(run: Path, out: Path, *, people: int, per: int, drawing: Drawing = Drawing()) -> dict[str, Any]:
    """Write a dataset folder of drawn faces and its contact sheet; return what was made.

    The people are classes chosen by the seed; a face depends on (weights, class, seed) alone.

    Raises:
        UserError: `out` is not empty, more people than classes, or what `load_run` and `TokenModel.sample` refuse.
    """
    must_be_new(out)
    trained = load_run(run)
    known = trained.model.config.classes
    if not 1 <= people <= known or per < 1:
        raise UserError(f"{people} people with {per} faces each, but the model knows {known} people; ask for 1 to {known}, and for at least one face each")
    chosen = sorted(numpy_rng(drawing.seed, "people").permutation(known)[:people].tolist())
    writer = ShardWriter(out)
    for record in _records(trained, chosen, per, drawing):
        writer.add(record)
    writer.close()
    facts = {**WORDS, "tokenizer_sha256": trained.tokenizer_sha256, "token_model_sha256": trained.model_sha256, "seed": drawing.seed, "top_k": drawing.top_k, "temperature": drawing.temperature}
    finalise(out, title=f"{people} people of {run.name or 'a token model'}", generator="glotok-tokens", facts=facts)
    return {"people": people, "faces": people * per, "classes of the model": known, "folder": str(out), "picture": str(write_sheet(out, seed=drawing.seed))}


def _records(trained: TrainedRun, chosen: list[int], per: int, drawing: Drawing) -> Iterator[FaceRecord]:
    wanted = [(number, label, image) for number, label in enumerate(chosen) for image in range(per)]
    with bar("drawing faces", len(wanted)) as step:
        for begin in range(0, len(wanted), BATCH):
            part = wanted[begin : begin + BATCH]
            seeds = [derive_seed(drawing.seed, label, image) for _, label, image in part]
            labels = [label for _, label, _ in part]
            face_BCHW = sample_faces(trained.model, trained.tokenizer, labels, seeds, batch=BATCH, top_k=drawing.top_k, temperature=drawing.temperature)
            for (number, label, image), seed, face_HWC in zip(part, seeds, to_uint8(face_BCHW)):
                yield FaceRecord(
                    face_id=f"{number:06d}/{image:04d}", identity=number, image=encode_png(face_HWC), seed=seed, generator=f"glotok-tokens@{trained.model_sha256[:12]}",
                    origin="generated:glotok-tokens", source=f"class {trained.classes[label] if trained.classes else label}",
                )  # fmt: skip
            step(len(part))
