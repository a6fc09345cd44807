"""The last stage: all scores and embeddings together, filters, and the dataset folder as the world will see it.

Runs in one process under one claim. Every file is written whole or not at all and is a function of the plan, so a run that is
killed here begins the stage again and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.progress import bar
from ..identity.centres import read_centres
from ..identity.dataset import finalise, read_shard, shard_path, shards_of, write_shard
from ..quality.filters import FilterInput
from ..quality.metrics import dataset_figures, identity_centres
from ..quality.sdd_fiqa import sdd_fiqa
from .contact_sheet import SHEET, write_sheet
from .leakage import leakage_statement
from .local import Made
from .plan import Plan, Shard, read_anchors, read_plan
from .shards import Stage


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is known of every generated image, in the order of the shards; images stay on disk.

    Attributes:
        face_id, identity_N: addresses.
        embed_ND: unit embeddings by the judge.
        anchor_ND: anchor of each image, or None where the judge lives in another space.
        scores: name → float32 (N,), NaN where it has no value.
        dropped: reason or None for each row.
        failed: addresses that gave no image, with reasons.
    """

    face_id: tuple[str, ...]
    identity_N: np.ndarray
    embed_ND: np.ndarray
    anchor_ND: np.ndarray | None
    scores: dict[str, np.ndarray]
    dropped: tuple[str | None, ...]
    failed: tuple[dict[str, str], ...]

    @property
    def kept_N(self) -> np.ndarray:
        """Which rows no filter refused."""
        return np.array([reason is None for reason in self.dropped])

    def figures(self, threshold: float) -> dict[str, float]:
        """Return the figures of the kept rows; what cannot be measured is left out."""
        kept_N = self.kept_N
        anchor_ND = None if self.anchor_ND is None else self.anchor_ND[kept_N]
        found = asdict(dataset_figures(self.embed_ND[kept_N], self.identity_N[kept_N], threshold=threshold, anchor_ND=anchor_ND))
        return {name: value for name, value in found.items() if name not in ("images", "identities") and np.isfinite(value)}

    def facts(self) -> dict[str, Any]:
        """Return the counts that go into manifest and report."""
        reasons = Counter(reason.split()[0].rstrip(":") for reason in self.dropped if reason)
        kept, total = int(self.kept_N.sum()), len(self.face_id)
        identities = int(np.unique(self.identity_N[self.kept_N]).size)
        return {"generated": total, "kept": kept, "rejected": total - kept, "failed": len(self.failed), "identities": identities, "reasons": dict(sorted(reasons.items()))}


@dataclass(frozen=True, kw_only=True)
class PublishStep:
    """Merge, score, filter, write `data/` and `rejected/`, the card and the manifest. Its single "shard" is the whole set."""

    folder: Path
    lease_s: float
    label: str = "publish"

    @property
    def stage(self) -> Stage:
        return Stage(root=self.folder, name="publish", lease_s=self.lease_s)

    def open(self) -> Callable[[Shard], Made]:
        plan = read_plan(self.folder)
        return lambda shard: self._make(plan)

    def _make(self, plan: Plan) -> Made:
        rows = gather(self.folder, plan)
        if all(rows.dropped):
            raise UserError(f"the filters rejected all {len(rows.dropped)} images ({rows.facts()['reasons']}); loosen them and run into another --out")
        files = _write_shards(self.folder, plan, rows)
        digest = dataset_digest(files)
        write_sheet(self.folder, seed=plan.spec.seed)
        finalise(self.folder, title=plan.spec.name, generator=plan.spec.generator.name, facts=_card_facts(plan, rows, digest))
        files += [self.folder / name for name in ("README.md", "manifest.json", SHEET)]
        return files, {"rows": len(rows.face_id), **rows.facts(), "digest": digest}


def gather(folder: Path, plan: Plan) -> Rows:
    """Read embeddings and identities of all shards, score and filter them. Images are not read."""
    embed = Stage(root=folder, name="embed")
    markers = _markers(folder, plan)
    face_ids = tuple(name for marker in markers for name in marker["face_id"])
    embed_ND = np.concatenate([np.load(embed.data(shard.id, ".npy")) for shard in plan.shards])
    identity_N = np.array([int(name.split("/")[0]) for name in face_ids], dtype=np.int32)
    anchor_ID = read_anchors(folder)
    data = FilterInput(
        embed_ND=embed_ND, identity_N=identity_N, real_centres=plan.spec.centres and read_centres(plan.spec.centres),
        anchor_ND=anchor_ID[identity_N] if anchor_ID.shape[1] == embed_ND.shape[1] else None,  # another judge lives in another space
        image_hashes=tuple(digest for marker in markers for digest in marker["image_sha256"]),
    )  # fmt: skip
    dropped, scores = _judge(plan, data)
    failed = tuple(row for marker in markers for row in marker["failed"])
    return Rows(face_id=face_ids, identity_N=identity_N, embed_ND=embed_ND, anchor_ND=data.anchor_ND, scores=scores, dropped=dropped, failed=failed)


def _judge(plan: Plan, data: FilterInput) -> tuple[tuple[str | None, ...], dict[str, np.ndarray]]:
    """Apply the filters in order, each to the rows that are left; return the first reason of each row, and all scores."""
    reasons: list[str | None] = [None] * len(data)
    centre_ID, index_N = identity_centres(data.embed_ND, data.identity_N)
    scores = {"centre_similarity": (data.embed_ND * centre_ID[index_N]).sum(1)}
    if data.anchor_ND is not None:
        scores["anchor_similarity"] = (data.embed_ND * data.anchor_ND).sum(1)
    for part in plan.spec.filters:
        left = [row for row, reason in enumerate(reasons) if reason is None]
        result = part.settings.apply(_subset(data, left))  # type: ignore[attr-defined]
        for row, reason in zip(left, result.reasons):
            reasons[row] = reason
        for name, values in result.scores.items():
            scores.setdefault(name, np.full(len(data), np.nan, np.float32))[left] = values
    if "sdd_fiqa" not in scores:
        scores["sdd_fiqa"] = sdd_fiqa(data.embed_ND, data.identity_N, mode="pool", signed=True)
    return tuple(reasons), {name: np.asarray(values, dtype=np.float32) for name, values in scores.items()}


def _subset(data: FilterInput, rows: Sequence[int]) -> FilterInput:
    anchor_ND = None if data.anchor_ND is None else data.anchor_ND[rows]
    hashes = tuple(data.image_hashes[row] for row in rows)
    return FilterInput(embed_ND=data.embed_ND[rows], identity_N=data.identity_N[rows], anchor_ND=anchor_ND, image_hashes=hashes, real_centres=data.real_centres)


def _markers(folder: Path, plan: Plan) -> list[dict[str, Any]]:
    """Return what each generated shard recorded; its images may be gone, once they are published."""
    generate, embed = Stage(root=folder, name="generate"), Stage(root=folder, name="embed")
    if any(generate.recorded(shard.id) is None or embed.marker(shard.id) is None for shard in plan.shards):
        raise UserError(f"the job in {folder} is not finished; run it again, it carries on where it stopped")
    return [generate.recorded(shard.id) or {} for shard in plan.shards]


def _shard_rows(plan: Plan, folder: Path) -> Iterator[tuple[Shard, slice]]:
    first = 0
    for shard, marker in zip(plan.shards, _markers(folder, plan)):
        yield shard, slice(first, first + marker["rows"])
        first += marker["rows"]


def _write_shards(folder: Path, plan: Plan, rows: Rows) -> list[Path]:
    """Write one kept and one rejected file for each shard that has such rows; files of an earlier attempt go."""
    parts: dict[str, list[tuple[Shard, slice]]] = {"data": [], "rejected": []}
    for shard, span in _shard_rows(plan, folder):
        reasons = rows.dropped[span]
        parts["data"] += [(shard, span)] if None in reasons else []
        parts["rejected"] += [(shard, span)] if any(reasons) else []
    files: list[Path] = []
    with bar("write", len(parts["data"]) + len(parts["rejected"])) as advance:
        for part, spans in parts.items():
            for number, (shard, span) in enumerate(spans):
                records = read_shard(Stage(root=folder, name="generate").data(shard.id, ".parquet"))
                judged = [_judged(record, rows, row) for row, record in zip(range(span.start, span.stop), records)]
                path = shard_path(folder, part, number, len(spans))
                write_shard(path, [record for record in judged if (record.dropped is None) == (part == "data")])
                files.append(path)
                advance(1)
    for stale in {path for part in parts for path in shards_of(folder, part)} - set(files):
        stale.unlink()
    return files


def _judged(record: Any, rows: Rows, row: int) -> Any:
    scores = {name: float(values[row]) for name, values in rows.scores.items() if np.isfinite(values[row])}
    return replace(record, scores={**record.scores, **scores}, dropped=rows.dropped[row])


def _card_facts(plan: Plan, rows: Rows, digest: str) -> dict[str, Any]:
    return {
        "picture": SHEET,
        "command": "facefoundry run job.yaml",
        "embedder": f"{plan.spec.judge} (judge and filter)",
        "training_data": "see the model card of the generator's weights",
        "leakage": leakage_statement(plan, rows.facts()["reasons"].get("leakage", 0)),
        "fingerprint": plan.fingerprint,
        "images_sha256": digest,
        **{key: value for key, value in rows.facts().items() if value},
        **rows.figures(plan.spec.match_cosine),
    }


def dataset_digest(files: Sequence[Path]) -> str:
    """Return one SHA-256 over (face_id, SHA-256 of the image) of every row, kept or not."""
    lines = []
    for path in files:
        lines += [f"{record.face_id} {hashlib.sha256(record.image or b'').hexdigest()} {record.dropped or ''}" for record in read_shard(path)]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
