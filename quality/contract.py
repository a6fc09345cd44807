"""What every filter promises: the tests try it on ours, `check_filter` on yours.

A promise is a function of (name, filter class) that raises `ContractError`. All of them use `tiny()`. Axes: N images, D embedding.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..core.config import Config
from ..core.contracts import ContractError, check_all, demand
from ..core.errors import UserError
from ..core.seeds import numpy_rng
from .filters import FilterInput


def check_filter(name: str, rule: type[Config]) -> None:
    """Try all promises on a filter class, under the name it is registered by in `FILTERS`.

    Raises:
        ContractError: lists the promises that are broken.
    """
    check_all([_named(promise, name) for promise in PROMISES], rule)


def every_row_is_kept_or_has_a_reason(name: str, rule: Any) -> None:
    """One entry a row: None, or a text that begins with the filter's name; scores are float32, one a row; some row is kept."""
    data = sample()
    found = rule.tiny().apply(data)
    demand(len(found.reasons) == len(data), f"{len(found.reasons)} reasons for {len(data)} rows")
    bad = [reason for reason in found.reasons if reason is not None and not (isinstance(reason, str) and reason.startswith(name))]
    demand(not bad, f"the reason {bad[0]!r} does not begin with '{name}'" if bad else "")
    for key, score_N in found.scores.items():
        demand(isinstance(score_N, np.ndarray) and score_N.shape == (len(data),) and score_N.dtype == np.float32, f"the score '{key}' is not float32 ({len(data)},)")
    strangers = set(found.refused) - set(data.identity_N.tolist())
    demand(not strangers, f"refused identities {sorted(strangers)[:3]} are not in the data")


def the_same_rows_are_judged_the_same(name: str, rule: Any) -> None:
    """Two calls agree, and the arrays given stay as they were: workers and kills must change nothing."""
    data, filter_ = sample(), rule.tiny()
    before_ND = data.embed_ND.copy()
    first, again = filter_.apply(data), filter_.apply(data)
    demand(first.reasons == again.reasons, "a second call judged the rows otherwise; draw with core.seeds.numpy_rng(seed, ...)")
    demand(np.array_equal(data.embed_ND, before_ND), "the embeddings given were changed in place")


def one_row_is_judged_or_refused(name: str, rule: Any) -> None:
    """Earlier filters may leave a single image: it is judged, or refused with a `UserError` that says what the filter compares with."""
    try:
        found = len(rule.tiny().apply(sample().subset(np.arange(1))).reasons)
    except UserError:
        return
    except Exception as error:
        raise ContractError(f"one row raised {type(error).__name__} ({error}), expected a result or a UserError") from error
    demand(found == 1, f"{found} reasons for 1 row")


def settings_survive_the_way_through_a_file(name: str, rule: Any) -> None:
    """Settings written as JSON and read again are the same settings."""
    filter_ = rule.tiny()
    demand(rule.parse(filter_.model_dump(mode="json")) == filter_, "settings that were written to a file and read again are not equal; use pydantic fields only")


PROMISES = (every_row_is_kept_or_has_a_reason, the_same_rows_are_judged_the_same, one_row_is_judged_or_refused, settings_survive_the_way_through_a_file)


def sample(people: int = 10, shots: int = 6, dim: int = 16) -> FilterInput:
    """Return rows to judge: people with scattered images, their anchors, hashes, and a few real centres."""
    rng = numpy_rng("contract", "filter")
    centre_ID = rng.standard_normal((people, dim))
    identity_N = np.repeat(np.arange(people), shots)
    return FilterInput(
        embed_ND=_unit(centre_ID[identity_N] + 0.8 * rng.standard_normal((people * shots, dim))),
        identity_N=identity_N,
        anchor_ND=_unit(centre_ID)[identity_N],
        image_hashes=tuple(f"{row:04d}" for row in range(people * shots)),
        perceptual_N=rng.integers(0, 2**63, people * shots, dtype=np.uint64),
        real_centres=_unit(rng.standard_normal((7, dim))),
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _named(promise: Any, name: str) -> Any:
    bound = partial(promise, name)
    bound.__name__ = promise.__name__  # type: ignore[attr-defined]
    return bound
