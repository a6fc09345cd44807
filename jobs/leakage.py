"""What card and report say about real people: what was compared with them, what was dropped for it, and what was not compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.files import bundled
from ..identity.anchors import AnchorPrior
from ..identity.centres import read_centres
from ..identity.pairs import pair_histogram
from ..quality.leakage import nearest_people
from ..quality.metrics import identity_centres
from .identities import PRIOR
from .plan import Plan, anchor_counts

if TYPE_CHECKING:
    from .publish import Rows


def leakage_counts(folder: Path, plan: Plan, rows: Rows) -> dict[str, Any]:
    """Return what was dropped for being near a real person, and what is left: empty where nothing was compared.

    Returns:
        `anchors_compared_with` (people), `anchors_dropped`; with `centres` in the job `people`, `cosine` (the lowest limit of its filters),
        `images_dropped`, `identities_dropped` (whole), `images_left` and `identities_left` (kept ones above the limit: their own images, their mean);
        of the kept, cosine to the nearest real person: `images_median`, `images_p99`, `images_highest`, `identities_highest`; `real_fmr`: share of
        pairs of different real people whose centres reach the limit.
    """
    drawn, found = anchor_counts(folder), {}
    if drawn.get("people"):
        found = {"anchors_compared_with": drawn["people"], "anchors_dropped": drawn["leaked"]}
    limit = _limit(plan)
    if plan.spec.centres is None or limit is None:
        return found
    real_RD, kept_N = read_centres(plan.spec.centres), rows.kept_N
    reason_N = np.array([(reason or "").split()[0] if reason else "" for reason in rows.dropped])
    embed_ND, identity_N = rows.embed_ND[kept_N], rows.identity_N[kept_N]
    near_N, near_I = (nearest_people(each, real_RD, limit)[1] for each in (embed_ND, identity_centres(embed_ND, identity_N)[0]))
    return found | {
        "people": len(real_RD), "cosine": limit, "images_dropped": int((reason_N == "leakage").sum()),
        "identities_dropped": len(np.unique(rows.identity_N[reason_N == "leakage_identity"])), "images_left": int((near_N > limit).sum()), "identities_left": int((near_I > limit).sum()),
        **{f"images_{name}": round(float(np.quantile(near_N, share)), 4) for name, share in (("median", 0.5), ("p99", 0.99), ("highest", 1.0))},
        "identities_highest": round(float(near_I.max()), 4),
        **({"real_fmr": pair_histogram(real_RD, np.arange(len(real_RD))).fmr_at(limit)} if len(real_RD) > 1 else {}),
    }  # fmt: skip


def leakage_statement(folder: Path, plan: Plan, counts: dict[str, Any]) -> str:
    """Return a sentence on the anchors and one on the images; `counts` as `leakage_counts` found them."""
    return f"{_on_anchors(folder, plan)} {_on_images(plan, counts)}"


def _on_anchors(folder: Path, plan: Plan) -> str:
    source, drawn = plan.spec.identities, anchor_counts(folder)
    compared = (
        f" {drawn['drawn']:,} candidates were compared with the centres of {drawn['people']:,} real people: {drawn['leaked']:,} came within a cosine of "
        f"{drawn.get('leak_cosine', 0.58):g} and were dropped." if drawn.get("people") else ""
    )  # fmt: skip
    pool = AnchorPrior.load(bundled(PRIOR)).pool if source.source == "prior" and source.file is None else None
    if pool is not None:
        return (
            f"The anchors come from a pool of {len(pool.anchor_ID):,} that was checked before it shipped: every two have a cosine below {pool.max_cosine:g}, and none "
            f"reaches {pool.leak_cosine:g} (1 pair of strangers in 1,000 does) to the centre of one of the {pool.people:,} real people it was checked against.{compared}"
        )
    origin = {"file": "came from a file of the user's", "embeddings": "are embeddings from a file of the user's"}.get(source.source, f"were drawn by the law '{source.source}'")
    return f"The anchors {origin}{';' + compared if compared else '; their distance to real people is not known here.'}"


def _on_images(plan: Plan, counts: dict[str, Any]) -> str:
    if "people" not in counts:
        return "The images were not compared with real people: no centres were given."
    whole = f", and {counts['identities_dropped']:,} identities whose mean was above it" if any(part.name == "leakage_identity" for part in plan.spec.filters) else ""
    return (
        f"The images were compared with the centres of {counts['people']:,} real people by {plan.spec.judge}: {counts['images_dropped']:,} above a cosine of {counts['cosine']:g} were set aside{whole}. "
        f"Of what is kept, {counts['images_left']:,} images and the means of {counts['identities_left']:,} identities are above it. "
        f"The nearest real person is at a cosine of {counts['images_median']:.3f} for the median image, {counts['images_p99']:.3f} at the 99th percentile, {counts['images_highest']:.3f} at most; "
        f"for the mean of an identity {counts['identities_highest']:.3f} at most.{_chance(counts)}"
    )


def _chance(counts: dict[str, Any]) -> str:
    return f" Of the pairs of different real people, {counts['real_fmr']:.2%} reach the limit." if "real_fmr" in counts else ""


def _limit(plan: Plan) -> float | None:
    return min((part.settings.above for part in plan.spec.filters if part.name.startswith("leakage")), default=None)  # type: ignore[attr-defined]
