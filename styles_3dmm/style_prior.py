"""The style prior: how styles differ between people and how much each person's own pictures differ.

Hierarchical random effects, our reading [C] of MorphFace's prior (CVPR 2025; generators.md §3.2, steps 1-7):
1. per subject with n ≥ 8 pictures: mean μ_i, variance v_i of every (standardised) column, h_i = log v_i;
2. between subjects: m = mean μ_i, B = Cov(μ_i) - mean diag(v_i / n_i), eigenvalues clipped at 0;
3. spread law: h ~ N(m_h, V_h), V_h diagonal, without the sampling noise 2 / (n - 1) of a log-variance;
4. within subjects: correlation R of pooled (p - μ_i) / √v_i, shrunk 10 % to the identity, block-diagonal over expression+pose, light+camera, shape, texture;
5. a virtual subject: μ ~ N(m, B), h ~ N(m_h, V_h), D = diag(e^{h/2});
6. its pictures: p ~ N(μ, D R D);
7. guards: a reference sets the shape and texture of μ and their D shrinks to a quarter; draws beyond the 0.999 quantile of χ² or |yaw| > 90° are drawn again.
Colours (light, skin) are rotated to brightness and two differences first: red, green and blue of a light are nearly one number, and whatever loosens their
tie (the shrinking of step 4, a spread drawn for each) would shine purple and green lamps on people.
Axes: N pictures, I subjects, P columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2

from ..core.check import check
from ..core.errors import UserError
from ..core.files import weights_path
from ..core.weights import load_weights, save_tensors
from .style import POSE, TONE, StyleLayout

GROUPS = (("expr", "pose"), ("light", "cam"), ("shape",), ("tex",))
"""Blocks that vary together within a person."""

OF_THE_PERSON = ("shape", "tex")
"""Blocks that hold who it is: a reference sets them, and they hardly vary."""

_LEAST_VARIANCE = 1e-2
"""Of standardised columns. A face unit a person never used has variance 0, and its logarithm would be -∞."""
_SHRINK = 0.1
_OPPONENT = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]]) / np.sqrt([[3.0], [2.0], [6.0]])
"""Rows: brightness, red against blue, green against both; orthogonal."""
_PERSON_SPREAD = 0.25
_QUANTILE = 0.999
_MOST_YAW_DEG = 90.0
_RETRIES = 100
_KIND = "style-prior"


@dataclass(frozen=True, kw_only=True, eq=False)
class StylePrior:
    """A fitted law of styles; all but `centre_P` and `scale_P` is in standardised columns, colours as brightness and differences.

    Attributes:
        centre_P, scale_P: mean and standard deviation of the data's columns, colours rotated; one that never varied has scale 0 and is never varied.
        mean_P: m. between_PR: a root of B, B = root · rootᵀ; R its rank.
        log_variance_P, log_variance_spread_P: m_h and √V_h.
        within_PP: R, the correlation of one person's pictures.
        facts: provenance, for people.
    """

    layout: StyleLayout
    centre_P: np.ndarray
    scale_P: np.ndarray
    mean_P: np.ndarray
    between_PR: np.ndarray
    log_variance_P: np.ndarray
    log_variance_spread_P: np.ndarray
    within_PP: np.ndarray
    facts: dict[str, Any]

    def sample_subject(self, rng: np.random.Generator, reference_P: np.ndarray | None = None, *, subject_agnostic: bool = False, shared_spread: bool = False) -> Subject:
        """Draw a virtual subject (step 5).

        Args:
            reference_P: style code of the identity's reference face: its shape and texture become the subject's (step 7).
            subject_agnostic: ablation: no distinctiveness; every picture draws its own mean (and spread) from the population, so
                that all subjects have one and the same law, as varied as the subjects together.
            shared_spread: ablation: every subject has the spread e^{m_h}.
        """
        offset_P = None
        if reference_P is not None:
            check("reference_P", reference_P, str(len(self.layout)))
            offset_P = (_opponent(np.asarray(reference_P, np.float64)[None], self.layout)[0] - self.centre_P) / np.where(self.scale_P > 0, self.scale_P, 1.0)
        mean_1P, spread_1P = self._draw_person(rng, 1, shared_spread)
        return Subject(prior=self, mean_P=mean_1P[0], spread_P=spread_1P[0], reference_P=offset_P, subject_agnostic=subject_agnostic, shared_spread=shared_spread)

    def save(self, path: Path) -> None:
        """Write the prior as safetensors; its root of the between-subject covariance and its correlation as float32."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name), np.float32)) for name in _ARRAYS}
        save_tensors(path, tensors, kind=_KIND, config={"layout": self.layout.to_json()}, facts=self.facts)

    @classmethod
    def load(cls, name: str | Path = "style-prior") -> StylePrior:
        """Read a prior by path, or a bundled one by name.

        Raises:
            UserError: no such file, another kind of file, or one whose parts do not fit each other.
        """
        path = weights_path(str(name))
        tensors, config, facts = load_weights(path, kind=_KIND)
        layout = StyleLayout.from_json(config.get("layout", ""))
        missing = [name for name in _ARRAYS if name not in tensors]
        if missing or any(tensors[name].shape[0] != len(layout) for name in _ARRAYS):
            raise UserError(f"the style prior {path} does not fit its layout of {len(layout)} columns{' and lacks ' + ', '.join(missing) if missing else ''}; make it again: facefoundry styles prior")
        return cls(layout=layout, facts=facts, **{name: tensors[name].numpy().astype(np.float64) for name in _ARRAYS})

    def _draw_person(self, rng: np.random.Generator, count: int, shared_spread: bool) -> tuple[np.ndarray, np.ndarray]:
        """Means and spreads (square roots of variances) of people, (count, P) each."""
        mean_NP = self.mean_P + _bounded_normal(rng, count, self.between_PR.shape[1]) @ self.between_PR.T
        draw_NP = _bounded_normal(rng, count, len(self.mean_P))
        log_NP = self.log_variance_P + (0.0 if shared_spread else 1.0) * draw_NP * self.log_variance_spread_P
        return mean_NP, np.exp(log_NP / 2)


_ARRAYS = ("centre_P", "scale_P", "mean_P", "between_PR", "log_variance_P", "log_variance_spread_P", "within_PP")


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A virtual subject: the law of one person's pictures."""

    prior: StylePrior
    mean_P: np.ndarray
    spread_P: np.ndarray
    reference_P: np.ndarray | None = None
    subject_agnostic: bool = False
    shared_spread: bool = False

    def sample_image(self, rng: np.random.Generator, n: int = 1) -> np.ndarray:
        """Draw style codes of n pictures, (n, P) float32, in the units of the layout (step 6).

        Draws with |yaw| > 90° are drawn again, at most 100 times; what is left over then keeps the subject's own mean picture's yaw, clipped.
        """
        layout, code_NP = self.prior.layout, np.empty((n, len(self.prior.layout)), np.float32)
        yaw, waiting = layout.column(POSE[0]), np.arange(n)
        for _ in range(_RETRIES):
            code_NP[waiting] = self._draw(rng, len(waiting))
            waiting = waiting[np.abs(code_NP[waiting, yaw]) > _MOST_YAW_DEG]
            if not len(waiting):
                break
        code_NP[:, yaw] = np.clip(code_NP[:, yaw], -_MOST_YAW_DEG, _MOST_YAW_DEG)
        return code_NP

    def _draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        mean_NP, spread_NP = np.broadcast_to(self.mean_P, (n, len(self.mean_P))), np.broadcast_to(self.spread_P, (n, len(self.mean_P)))
        if self.subject_agnostic:
            mean_NP, spread_NP = self.prior._draw_person(rng, n, self.shared_spread)
        mean_NP, spread_NP = mean_NP.copy(), spread_NP.copy()
        for block in OF_THE_PERSON:
            columns = self.prior.layout.slices[block]
            spread_NP[:, columns] *= _PERSON_SPREAD
            if self.reference_P is not None:
                mean_NP[:, columns] = self.reference_P[columns]
        # |z|² is the Mahalanobis distance of the draw, since R = L Lᵀ.
        standard_NP = mean_NP + spread_NP * (_bounded_normal(rng, n, len(self.mean_P)) @ np.linalg.cholesky(self.prior.within_PP).T)
        return self.prior.layout.clip(_opponent(self.prior.centre_P + self.prior.scale_P * standard_NP, self.prior.layout, back=True))


def fit_style_prior(code_NP: np.ndarray, identity_N: np.ndarray, layout: StyleLayout, *, least_images: int = 8, facts: dict[str, Any] | None = None) -> StylePrior:
    """Fit the prior to the style codes of real pictures (steps 1-4).

    Args:
        code_NP: codes; rows with a NaN are left out.
        identity_N: who is in each picture.
        least_images: subjects with fewer are left out.

    Besides the noise of step 3 the bias of a log-variance, about -1 / (n - 1), is removed from m_h.

    Raises:
        UserError: fewer than two subjects are left.
    """
    check("code_NP", code_NP, f"N {len(layout)}")
    check("identity_N", identity_N, str(len(code_NP)))
    whole_N = np.isfinite(code_NP).all(1)
    code_NP, identity_N = _opponent(np.asarray(code_NP, np.float64)[whole_N], layout), np.asarray(identity_N)[whole_N]
    _, person_N, count_I = np.unique(identity_N, return_inverse=True, return_counts=True)
    enough = np.flatnonzero(count_I >= least_images)
    if len(enough) < 2:
        raise UserError(f"{len(enough)} of {len(count_I)} people have at least {least_images} pictures with a style code, expected 2 or more; bring more pictures a person, or lower least_images")
    centre_P, scale_P = code_NP.mean(0), code_NP.std(0)
    scale_P = np.where(scale_P > 1e-8, scale_P, 0.0)
    standard_NP = (code_NP - centre_P) / np.where(scale_P > 0, scale_P, 1.0)
    rows = [standard_NP[person_N == person] for person in enough]
    mean_IP = np.stack([row_NP.mean(0) for row_NP in rows])
    variance_IP = np.stack([row_NP.var(0, ddof=1) for row_NP in rows])
    log_IP, floored_IP = np.log(np.maximum(variance_IP, _LEAST_VARIANCE)), np.maximum(variance_IP, _LEAST_VARIANCE)
    count_I = count_I[enough]
    # Step 2 with its correction, step 3 with its own, step 4 on residuals of n - 1 degrees of freedom.
    between_PP = np.cov(mean_IP.T) - np.diag((variance_IP / count_I[:, None]).mean(0))
    noise = float((2.0 / (count_I - 1)).mean())
    residual_NP = np.concatenate([(row_NP - mean_P) / np.sqrt(variance_P) for row_NP, mean_P, variance_P in zip(rows, mean_IP, floored_IP)])
    return StylePrior(
        layout=layout, centre_P=centre_P, scale_P=scale_P, mean_P=mean_IP.mean(0), between_PR=_root(between_PP),
        log_variance_P=log_IP.mean(0) + float((1.0 / (count_I - 1)).mean()),
        log_variance_spread_P=np.sqrt(np.maximum(log_IP.var(0, ddof=1) - noise, 0.0)),
        within_PP=_within(residual_NP, layout),
        facts={"subjects": len(enough), "images": int(count_I.sum()), "least_images": least_images, **(facts or {})},
    )  # fmt: skip


def _opponent(code_NP: np.ndarray, layout: StyleLayout, *, back: bool = False) -> np.ndarray:
    """Codes with every red, green, blue rotated to brightness, red against blue, green against both; or rotated back."""
    code_NP, turn_33 = code_NP.copy(), _OPPONENT if back else _OPPONENT.T
    starts = [layout.slices["light"].start + 3 * k for k in range(9)]
    if TONE[0] in layout.names:
        starts.append(layout.column(TONE[0]))
    for start in starts:
        code_NP[:, start : start + 3] = code_NP[:, start : start + 3] @ turn_33
    return code_NP


def _within(residual_NP: np.ndarray, layout: StyleLayout) -> np.ndarray:
    """Step 4's correlation, (P, P), positive definite."""
    product_PP = residual_NP.T @ residual_NP
    length_P = np.sqrt(np.diag(product_PP))
    length_P[length_P == 0] = 1.0
    group_P = np.empty(len(layout), int)
    for number, blocks in enumerate(GROUPS):
        for block in blocks:
            group_P[layout.slices[block]] = number
    correlation_PP = product_PP / length_P[:, None] / length_P * (group_P[:, None] == group_P) * (1.0 - _SHRINK)
    np.fill_diagonal(correlation_PP, 1.0)
    return correlation_PP


def _root(covariance_PP: np.ndarray) -> np.ndarray:
    """A root, (P, R), of a covariance with its negative eigenvalues clipped at 0."""
    value_P, vector_PP = np.linalg.eigh(covariance_PP)
    kept = value_P > max(value_P.max(), 0.0) * 1e-9
    return vector_PP[:, kept] * np.sqrt(value_P[kept])


def _bounded_normal(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Standard normal rows, (count, size), with |z|² within the 0.999 quantile of χ²; one that fails 100 times is pulled to the edge."""
    if not size:
        return np.zeros((count, 0))
    limit, draw_NP = float(chi2.ppf(_QUANTILE, size)), rng.standard_normal((count, size))
    for _ in range(_RETRIES):
        far_N = np.square(draw_NP).sum(1) > limit
        if not far_N.any():
            break
        draw_NP[far_N] = rng.standard_normal((int(far_N.sum()), size))
    length_N1 = np.linalg.norm(draw_NP, axis=1, keepdims=True)
    return draw_NP * np.minimum(1.0, np.sqrt(limit) / np.maximum(length_N1, 1e-12))
