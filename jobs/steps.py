"""The two steps of a job that run on shards: generate the faces, embed them with the judge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_atomic
from .local import Made
from .make_images import face_id, make_images
from .media_type import mark
from .plan import Plan, Shard, read_anchors, read_plan
from .refill import addresses, stage_of
from .shards import Stage

EMBED_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class GenerateStep:
    """Anchors and seeds in, a Parquet shard of records out.

    Micro-batches run within one shard in a fixed order, so that pixels depend on the plan and never on the workers.
    """

    folder: Path
    lease_s: float
    number: int = 0  # round of the refill
    stage: Stage = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", stage_of(self.folder, "generate", self.number, self.lease_s))

    @property
    def label(self) -> str:
        return f"refill, round {self.number}" if self.number else "generate"

    def open(self) -> Callable[[Shard], Made]:
        import torch

        plan = read_plan(self.folder)
        torch.set_num_threads(plan.spec.engine.threads)
        anchor_ID = read_anchors(self.folder)
        generator = open_generator(plan, anchor_ID)
        return lambda shard: self._make(plan, generator, anchor_ID, shard)

    def _make(self, plan: Plan, generator: Any, anchor_ID: np.ndarray, shard: Shard) -> Made:
        from ..identity.dataset import write_shard

        rows = addresses(self.folder, plan, shard, self.number)
        images, failed = make_images(plan, generator, anchor_ID, rows, lambda done: self.stage.tell(shard.id, done))
        if not images and not self.number:  # a replacement may fail like any image: its slot stays empty
            raise UserError(f"shard {shard.id}: every image failed; the first: {failed[0]['reason']}")
        path = self.stage.data(shard.id, ".parquet")
        records = [record_of(plan, generator.name, anchor_ID, *row) for row in images]
        write_shard(path, records)
        hashes = [hashlib.sha256(record.image).hexdigest() for record in records]
        looks = [f"{value:016x}" for value in _perceptual_hashes(_stored(plan, records, images))]
        return [path], {"rows": len(records), "face_id": [record.face_id for record in records], "image_sha256": hashes, "image_phash": looks, "failed": failed}


@dataclass(frozen=True, kw_only=True)
class EmbedStep:
    """Generated shards in, unit embeddings of the judge out (`.npy`, float32, rows in the order of the shard)."""

    folder: Path
    lease_s: float
    number: int = 0  # round of the refill
    label: str = "embed"
    stage: Stage = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", stage_of(self.folder, "embed", self.number, self.lease_s))

    def open(self) -> Callable[[Shard], Made]:
        import torch

        from ..recognition.embedder import load_embedder

        plan = read_plan(self.folder)
        torch.set_num_threads(plan.spec.engine.threads)
        embedder = load_embedder(plan.spec.judge)
        return lambda shard: self._make(embedder, shard)

    def _make(self, embedder: Any, shard: Shard) -> Made:
        from ..core.images import decode, to_float
        from ..identity.dataset import read_shard

        records = read_shard(stage_of(self.folder, "generate", self.number).data(shard.id, ".parquet"))
        parts = [np.empty((0, embedder.dim), np.float32)]
        for start in range(0, len(records), EMBED_BATCH):
            image_BHWC = np.stack([decode(record.image) for record in records[start : start + EMBED_BATCH]])
            parts.append(np.asarray(embedder(to_float(image_BHWC)).detach().cpu(), dtype=np.float32))
        embed_ND = np.concatenate(parts)
        path = self.stage.data(shard.id, ".npy")
        write_atomic(path, lambda temporary: _save(temporary, embed_ND))
        return [path], {"rows": len(embed_ND)}


def open_generator(plan: Plan, anchor_ID: np.ndarray) -> Any:
    """Build the generator of a plan on its device; anchors of another width are the user's mistake."""
    import torch

    generator = build_generator(plan.spec.generator.settings, torch.device(plan.device))
    if anchor_ID.shape[1] != generator.anchor_dim:
        raise UserError(f"the identities have {anchor_ID.shape[1]} numbers each, but the generator '{generator.name}' takes {generator.anchor_dim}; use anchors made for it")
    return generator


def build_generator(settings: Any, device: Any) -> Any:
    """Build a generator from its settings; one with a `guide` is handed the way to embedders, which generators do not know."""
    from ..recognition.embedder import load_embedder
    from .first_stages import know_first_stages

    know_first_stages()
    return settings.build(device, load_embedder) if hasattr(settings, "guide") else settings.build(device)


def record_of(plan: Plan, generator: str, anchor_ID: np.ndarray, identity: int, image: int, seed: int, known: Mapping[str, Any], image_HWC: np.ndarray) -> Any:
    """Return a generated image as a record of the dataset, encoded as the job's writer says; `known` are fields its generator filled."""
    from ..core.images import encode_jpeg, encode_png
    from ..identity.records import FaceRecord

    writer = plan.spec.writer
    data = encode_png(image_HWC) if writer.format == "png" else encode_jpeg(image_HWC, writer.quality)
    if writer.mark:
        data = mark(data)
    origin = f"{'rendered' if generator == 'rendered' else 'generated'}:{generator}"
    return FaceRecord(
        face_id=face_id(identity, image), identity=identity, image=data, seed=seed, generator=f"{generator}@{plan.fingerprint[:12]}", origin=origin,
        anchor=anchor_ID[identity], scores={}, split="train", dropped=None, **known,
    )  # fmt: skip


def _stored(plan: Plan, records: Sequence[Any], images: Sequence[Any]) -> list[np.ndarray]:
    """The images as they lie on disk, after the codec; a lossless one gives back what it was given."""
    from ..core.images import decode

    return [row[-1] for row in images] if plan.spec.writer.format == "png" else [decode(record.image) for record in records]


def _perceptual_hashes(images: Sequence[np.ndarray]) -> list[int]:
    from ..core.images import to_float
    from ..quality.image_statistics import luminance, perceptual_hash

    parts = [np.stack(images[start : start + EMBED_BATCH]) for start in range(0, len(images), EMBED_BATCH)]
    return [int(value) for part in parts for value in perceptual_hash(luminance(to_float(part)))]


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
