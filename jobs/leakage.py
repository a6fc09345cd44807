"""What card and report say about real people: what was compared with them, and what was not."""

from __future__ import annotations

from ..core.files import bundled
from ..identity.anchors import AnchorPrior
from ..identity.centres import read_centres
from .plan import PRIOR, Plan


def leakage_statement(plan: Plan, removed: int) -> str:
    """Return two sentences: one on the anchors, one on the images; `removed` is how many the leakage filter set aside."""
    return f"{_on_anchors(plan)} {_on_images(plan, removed)}"


def _on_anchors(plan: Plan) -> str:
    pool = AnchorPrior.load(bundled(PRIOR)).pool if plan.spec.identities.source == "prior" else None
    if pool is None:
        return "The anchors came from a file of the user's; their distance to real people is not known here."
    return (
        f"The anchors come from a pool of {len(pool.anchor_ID):,} that was checked before it shipped: every two have a cosine below {pool.max_cosine:g}, and none "
        f"reaches {pool.leak_cosine:g} (1 pair of strangers in 1,000 does) to the centre of one of the {pool.people:,} real people it was checked against."
    )


def _on_images(plan: Plan, removed: int) -> str:
    above = [part.settings.above for part in plan.spec.filters if part.name == "leakage"]  # type: ignore[attr-defined]
    if plan.spec.centres is None or not above:
        return "The images were not compared with real people: no centres were given."
    people = len(read_centres(plan.spec.centres))
    return f"The images were compared with the centres of {people:,} real people by {plan.spec.judge}: {removed:,} above a cosine of {min(above):g} were set aside."
