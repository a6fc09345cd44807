"""The two steps of a job that run on shards: generate the faces, embed them with the judge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_atomic
from .local import Made
from .plan import Plan, Shard, read_anchors, read_plan
from .shards import Stage

EMBED_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class GenerateStep:
    """Anchors and seeds in, a Parquet shard of records out.

    Micro-batches run within one shard in a fixed order, so that pixels depend on the plan and never on the workers.
    """

    folder: Path
    lease_s: float
    label: str = "generate"
    stage: Stage = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", Stage(root=self.folder, name="generate", lease_s=self.lease_s))

    def open(self) -> Callable[[Shard], Made]:
        import torch

        plan = read_plan(self.folder)
        torch.set_num_threads(plan.spec.engine.threads)
        generator = plan.spec.generator.settings.build(torch.device(plan.device))  # type: ignore[attr-defined]
        anchor_ID = read_anchors(self.folder)
        if anchor_ID.shape[1] != generator.anchor_dim:
            raise UserError(f"the identities have {anchor_ID.shape[1]} numbers each, but the generator '{generator.name}' takes {generator.anchor_dim}; use anchors made for it")
        return lambda shard: self._make(plan, generator, anchor_ID, shard)

    def _make(self, plan: Plan, generator: Any, anchor_ID: np.ndarray, shard: Shard) -> Made:
        from ..identity.dataset import write_shard

        rows = addresses(plan, shard)
        images, failed = [], []
        for start in range(0, len(rows), plan.spec.engine.batch):
            part = rows[start : start + plan.spec.engine.batch]
            made, problems = _generate(generator, anchor_ID, part, plan.spec.seed)
            images += made
            failed += problems
        if not images:
            raise UserError(f"shard {shard.id}: every image failed; the first: {failed[0]['reason']}")
        path = self.stage.data(shard.id, ".parquet")
        records = [_record(plan, generator.name, anchor_ID, *row) for row in images]
        write_shard(path, records)
        hashes = [hashlib.sha256(record.image).hexdigest() for record in records]
        return [path], {"rows": len(records), "face_id": [record.face_id for record in records], "image_sha256": hashes, "failed": failed}


@dataclass(frozen=True, kw_only=True)
class EmbedStep:
    """Generated shards in, unit embeddings of the judge out (`.npy`, float32, rows in the order of the shard)."""

    folder: Path
    lease_s: float
    label: str = "embed"
    stage: Stage = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", Stage(root=self.folder, name="embed", lease_s=self.lease_s))

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

        records = read_shard(Stage(root=self.folder, name="generate").data(shard.id, ".parquet"))
        parts = []
        for start in range(0, len(records), EMBED_BATCH):
            image_BHWC = np.stack([decode(record.image) for record in records[start : start + EMBED_BATCH]])
            parts.append(np.asarray(embedder(to_float(image_BHWC)).detach().cpu(), dtype=np.float32))
        embed_ND = np.concatenate(parts)
        path = self.stage.data(shard.id, ".npy")
        write_atomic(path, lambda temporary: _save(temporary, embed_ND))
        return [path], {"rows": len(embed_ND)}


def addresses(plan: Plan, shard: Shard) -> list[tuple[int, int]]:
    """Return (identity, image) of every image of a shard, in order."""
    identities = range(shard.first_identity, shard.first_identity + shard.identities)
    return [(identity, image) for identity in identities for image in range(plan.spec.per_identity)]


def face_id(identity: int, image: int) -> str:
    """Return the name of an image, "000123/0007"."""
    return f"{identity:06d}/{image:04d}"


def _generate(generator: Any, anchor_ID: np.ndarray, rows: Sequence[tuple[int, int]], job_seed: int) -> tuple[list, list]:
    """Return ([(identity, image, seed, image_HWC)], [{face_id, reason}]); a batch that fails is tried again one by one."""
    from ..core.images import to_uint8
    from ..core.seeds import derive_seed

    seeds = [derive_seed(job_seed, identity, image, "noise") for identity, image in rows]
    try:
        batch = generator.generate(anchor_ID[[identity for identity, _ in rows]], seeds)
    except UserError:
        raise
    except Exception as error:  # whatever one image does must not lose the others: it is recorded with its reason
        if len(rows) == 1:
            return [], [{"face_id": face_id(*rows[0]), "reason": f"{type(error).__name__}: {error}"[:500]}]
        parts = [_generate(generator, anchor_ID, [row], job_seed) for row in rows]
        return [item for made, _ in parts for item in made], [item for _, failed in parts for item in failed]
    finite_B = batch.image_BCHW.flatten(1).isfinite().all(1).tolist()
    image_BHWC = to_uint8(batch.image_BCHW.nan_to_num())
    made = [(*row, seed, image) for row, seed, image, fine in zip(rows, seeds, image_BHWC, finite_B) if fine]
    return made, [{"face_id": face_id(*row), "reason": "the image holds NaN or infinite values"} for row, fine in zip(rows, finite_B) if not fine]


def _record(plan: Plan, generator: str, anchor_ID: np.ndarray, identity: int, image: int, seed: int, image_HWC: np.ndarray) -> Any:
    from ..core.images import encode_jpeg, encode_png
    from ..identity.records import FaceRecord

    writer = plan.spec.writer
    data = encode_png(image_HWC) if writer.format == "png" else encode_jpeg(image_HWC, writer.quality)
    origin = f"generated:{generator}"
    return FaceRecord(
        face_id=face_id(identity, image), identity=identity, image=data, seed=seed, generator=f"{generator}@{plan.fingerprint[:12]}", origin=origin,
        anchor=anchor_ID[identity], style=None, landmarks_px=None, scores={}, split="train", dropped=None,
    )  # fmt: skip


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
