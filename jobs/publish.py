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
from ..identity.dataset import MANIFEST, finalise, read_shard, shard_path, shards_of, write_shard
from ..quality.filters import FilterInput, FilterResult
from ..quality.filters_identity import BalanceFilter
from ..quality.inspect import quality_labels
from ..quality.metrics import dataset_figures, identity_centres
from .contact_sheet import SHEET, write_sheet
from .leakage import leakage_counts, leakage_statement
from .licences import chain_text, training_data
from .local import Made
from .plan import Plan, Shard, read_anchors, read_plan
from .refill import rounds, shards_in, stage_of
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
        flow: (name, images seen, images set aside) of each filter in its order.
        refused: identities set aside as such.
        failed: addresses that gave no image, with reasons.
    """

    face_id: tuple[str, ...]
    identity_N: np.ndarray
    embed_ND: np.ndarray
    anchor_ND: np.ndarray | None
    scores: dict[str, np.ndarray]
    dropped: tuple[str | None, ...]
    failed: tuple[dict[str, str], ...]
    flow: tuple[tuple[str, int, int], ...]
    refused: frozenset[int]

    @property
    def kept_N(self) -> np.ndarray:
        """Which rows no filter refused."""
        return np.array([reason is None for reason in self.dropped])

    @property
    def image_N(self) -> np.ndarray:
        """Number of each image within its identity; replacements count on beyond the job's own."""
        return np.array([address(name)[1] for name in self.face_id], dtype=np.int64)

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
        manifest = finalise(self.folder, title=plan.spec.name, generator=plan.spec.generator.name, facts=_card_facts(self.folder, plan, rows, digest))
        files = [self.folder / name for name in (*(entry["path"] for entry in manifest["shards"]), "README.md", MANIFEST, SHEET)]
        return files, {"rows": len(rows.face_id), **rows.facts(), "digest": digest}


def gather(folder: Path, plan: Plan, before: int | None = None) -> Rows:
    """Read embeddings and identities of all shards, score and filter them. Images are not read.

    Args:
        before: leave out this round of the refill and later ones.
    """
    numbers = [number for number in rounds(folder, plan) if before is None or number < before]
    merged = [_merge(pieces) for pieces in _pieces(folder, plan, numbers)]
    face_ids = tuple(name for part in merged for name in part["face_id"])
    embed_ND = np.concatenate([part["embed_ND"] for part in merged])
    identity_N = np.array([address(name)[0] for name in face_ids], dtype=np.int32)
    anchor_ID = read_anchors(folder)
    looks = [value for part in merged for value in part["image_phash"]]
    data = FilterInput(
        embed_ND=embed_ND, identity_N=identity_N, real_centres=plan.spec.centres and read_centres(plan.spec.centres),
        anchor_ND=anchor_ID[identity_N] if anchor_ID.shape[1] == embed_ND.shape[1] else None,  # another judge lives in another space
        image_hashes=tuple(digest for part in merged for digest in part["image_sha256"]), perceptual_N=np.array([int(value, 16) for value in looks], np.uint64) if len(looks) == len(face_ids) else None,
    )  # fmt: skip
    judged = _judge(plan, data)
    return Rows(face_id=face_ids, identity_N=identity_N, embed_ND=embed_ND, anchor_ND=data.anchor_ND, failed=tuple(row for part in merged for row in part["failed"]), **judged)


def address(face_id: str) -> tuple[int, int]:
    """Return (identity, image) of a face id."""
    identity, image = face_id.split("/")
    return int(identity), int(image)


def _judge(plan: Plan, data: FilterInput) -> dict[str, Any]:
    """Apply the filters in order, each to the rows that are left; return the first reason of each row, all scores, the flow and the refused identities."""
    reasons: list[str | None] = [None] * len(data)
    centre_ID, index_N = identity_centres(data.embed_ND, data.identity_N)
    scores = {"centre_similarity": (data.embed_ND * centre_ID[index_N]).sum(1)}
    if data.anchor_ND is not None:
        scores["anchor_similarity"] = (data.embed_ND * data.anchor_ND).sum(1)
    flow, refused = [], set[int]()
    for name, rule in _rules(plan):
        left = np.array([row for row, reason in enumerate(reasons) if reason is None], dtype=np.int64)
        if not left.size:
            break
        result = rule(data.subset(left))
        for row, reason in zip(left, result.reasons):
            reasons[row] = reason
        for score, values in result.scores.items():
            scores.setdefault(score, np.full(len(data), np.nan, np.float32))[left] = values
        flow.append((name, len(left), sum(reason is not None for reason in result.reasons)))
        refused |= result.refused
    if "sdd_fiqa" not in scores:
        scores["sdd_fiqa"] = quality_labels(data.embed_ND, data.identity_N)
    scores = {name: np.asarray(values, dtype=np.float32) for name, values in scores.items()}
    return {"dropped": tuple(reasons), "scores": scores, "flow": tuple(flow), "refused": frozenset(refused)}


def _rules(plan: Plan) -> list[tuple[str, Callable[[FilterInput], FilterResult]]]:
    """The filters of the job and, after a refill, the cap that keeps an identity at its count."""
    rules = [(part.name, part.settings.apply) for part in plan.spec.filters]  # type: ignore[attr-defined]
    return [*rules, ("surplus", lambda data: _surplus(data, plan.spec.per_identity))] if plan.spec.refill else rules


def _surplus(data: FilterInput, count: int) -> FilterResult:
    """A judgement of the set as a whole may keep an image after all whose replacement is there: the earlier images stay."""
    reasons = BalanceFilter(most=count).apply(data).reasons
    return FilterResult(reasons=[reason and reason.replace("balance", "surplus", 1) for reason in reasons])


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A shard of a round."""

    shard: Shard
    generate: Stage
    embed: Stage
    marker: dict[str, Any]


def _pieces(folder: Path, plan: Plan, numbers: Sequence[int]) -> list[list[_Piece]]:
    """Return for each shard its pieces of the rounds; what was recorded counts, the images may be gone once they are published."""
    found: dict[int, list[_Piece]] = {shard.id: [] for shard in plan.shards}
    for number in numbers:
        generate, embed = stage_of(folder, "generate", number), stage_of(folder, "embed", number)
        for shard in shards_in(folder, plan, number):
            marker = generate.recorded(shard.id)
            if marker is None or embed.marker(shard.id) is None:
                raise UserError(f"the job in {folder} is not finished; run it again, it carries on where it stopped")
            found[shard.id].append(_Piece(shard=shard, generate=generate, embed=embed, marker=marker))
    return list(found.values())


def _merge(pieces: Sequence[_Piece]) -> dict[str, Any]:
    """Return what is known of the rows of a shard, by identity and image."""
    parts = {name: [value for piece in pieces for value in piece.marker.get(name, ())] for name in ("face_id", "image_sha256", "image_phash", "failed")}
    order = sorted(range(len(parts["face_id"])), key=lambda row: address(parts["face_id"][row]))
    embed_ND = np.concatenate([np.load(piece.embed.data(piece.shard.id, ".npy")) for piece in pieces])[order]
    rows = {name: [parts[name][row] for row in order] if len(parts[name]) == len(order) else [] for name in ("face_id", "image_sha256", "image_phash")}
    return {**rows, "failed": parts["failed"], "embed_ND": embed_ND}


def _shard_records(pieces: Sequence[_Piece]) -> list[Any]:
    records = [record for piece in pieces for record in read_shard(piece.generate.data(piece.shard.id, ".parquet"))]
    return sorted(records, key=lambda record: address(record.face_id))


def _shard_rows(plan: Plan, folder: Path) -> Iterator[tuple[list[_Piece], slice]]:
    first = 0
    for pieces in _pieces(folder, plan, rounds(folder, plan)):
        rows = sum(piece.marker["rows"] for piece in pieces)
        yield pieces, slice(first, first + rows)
        first += rows


def _write_shards(folder: Path, plan: Plan, rows: Rows) -> list[Path]:
    """Write one kept and one rejected file for each shard that has such rows; files of an earlier attempt go."""
    parts: dict[str, list[tuple[list[_Piece], slice]]] = {"data": [], "rejected": []}
    for pieces, span in _shard_rows(plan, folder):
        reasons = rows.dropped[span]
        parts["data"] += [(pieces, span)] if None in reasons else []
        parts["rejected"] += [(pieces, span)] if any(reasons) else []
    files: list[Path] = []
    with bar("write", len(parts["data"]) + len(parts["rejected"])) as advance:
        for part, spans in parts.items():
            for number, (pieces, span) in enumerate(spans):
                judged = [_judged(record, rows, row) for row, record in zip(range(span.start, span.stop), _shard_records(pieces))]
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


def _card_facts(folder: Path, plan: Plan, rows: Rows, digest: str) -> dict[str, Any]:
    near = leakage_counts(folder, plan, rows)
    return {
        "picture": SHEET,
        "command": "facefoundry run job.yaml",
        "embedder": f"{plan.spec.judge} (judge and filter)",
        "training_data": training_data(plan.spec),
        "license_chain": chain_text(plan.spec),
        "leakage": leakage_statement(folder, plan, near),
        **({"near_real_people": near} if near else {}),
        "fingerprint": plan.fingerprint,
        "images_sha256": digest,
        **{key: value for key, value in rows.facts().items() if value},
        "filters": flow_words(rows),
        **rows.figures(plan.spec.match_cosine),
    }


def flow_words(rows: Rows) -> str:
    """Return what happened to the images in one line, e.g. "24 made, sdd_fiqa -4, 20 kept"."""
    failed = [f"failed -{len(rows.failed)}"] if rows.failed else []
    steps = [f"{name} -{dropped}" for name, _, dropped in rows.flow]
    return ", ".join([f"{len(rows.face_id) + len(rows.failed)} made", *failed, *steps, f"{int(rows.kept_N.sum())} kept"])


def dataset_digest(files: Sequence[Path]) -> str:
    """Return one SHA-256 over (face_id, SHA-256 of the image) of every row, kept or not."""
    lines = []
    for path in files:
        lines += [f"{record.face_id} {hashlib.sha256(record.image or b'').hexdigest()} {record.dropped or ''}" for record in read_shard(path)]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
