"""IJB-type templates: many images of a person pooled into one vector, millions of pairs scored (recognition.md §8.3).

A template is the sum over its media of the mean feature of each medium (a still, or a video's frames), normalised. Sources: IJB-B/IJB-C
protocol as insightface's evaluation has it. Memory: nothing of the size of the images or the pairs is copied.
Axes: N images, T templates, P pairs, D embedding.
"""

from __future__ import annotations

import numba
import numpy as np

from ..core.errors import UserError


def pool_templates(feature_ND: np.ndarray, template_N: np.ndarray, media_N: np.ndarray, *, weight_N: np.ndarray | None = None, keep_norms: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return (template ids ascending (T,), unit float32 templates (T, D)).

    Args:
        feature_ND: raw features (flip already added); float32 is read in place.
        template_N, media_N: ids of each image; a medium is counted within its template.
        weight_N: detector score of each image, multiplied in ("D1"); None = "D0".
        keep_norms: True = features as they are ("N1", the official choice); False = unit length first ("N0").

    Raises:
        UserError: lengths that differ, or a feature or pooled template that is not finite or zero (named).
    """
    feature_ND = np.ascontiguousarray(feature_ND, np.float32)
    template_N, media_N = np.asarray(template_N), np.asarray(media_N)
    if not len(feature_ND) == len(template_N) == len(media_N) or (weight_N is not None and len(weight_N) != len(feature_ND)):
        raise UserError(f"{len(feature_ND)} features, {len(template_N)} template ids and {len(media_N)} media ids; expected one of each for every image")
    order_N = np.lexsort((media_N, template_N))
    id_T, start_T = np.unique(template_N[order_N], return_index=True)
    weights_N = np.ones(len(feature_ND), np.float32) if weight_N is None else np.asarray(weight_N, np.float32)
    template_TD = _pool(feature_ND, order_N, np.append(start_T, len(order_N)), media_N[order_N], weights_N, keep_norms)
    bad_T = ~np.isfinite(template_TD).all(axis=1)
    if bad_T.any():
        raise UserError(f"template {id_T[np.argmax(bad_T)]} has no direction (a feature of it is NaN, or they cancel out); {int(bad_T.sum())} such templates: embed a fallback crop where no face is found")
    return id_T, template_TD


def template_rows(id_T: np.ndarray, wanted_P: np.ndarray) -> np.ndarray:
    """Return the row of each wanted template id; UserError where one is not among the templates."""
    wanted_P = np.asarray(wanted_P)
    row_P = np.minimum(np.searchsorted(id_T, wanted_P), len(id_T) - 1)
    lost_P = id_T[row_P] != wanted_P
    if lost_P.any():
        raise UserError(f"the pair list names template {wanted_P[np.argmax(lost_P)]}, which has no images ({int(lost_P.sum())} such entries); expected every template in the list of images")
    return row_P


def score_template_pairs(template_TD: np.ndarray, left_P: np.ndarray, right_P: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of template rows, float32 (P,); runs on all threads numba may use."""
    if len(left_P) != len(right_P):
        raise UserError(f"{len(left_P)} left and {len(right_P)} right templates; expected two for each pair")
    return _pair_dots(np.ascontiguousarray(template_TD, np.float32), np.ascontiguousarray(left_P, np.int32), np.ascontiguousarray(right_P, np.int32))


@numba.njit(parallel=True, fastmath={"reassoc", "contract"}, cache=True)
def _pair_dots(template_TD, left_P, right_P):
    # Pairs come sorted by the first template, which therefore stays in the cache.
    score_P = np.empty(left_P.size, np.float32)
    dim = template_TD.shape[1]
    for pair in numba.prange(left_P.size):
        a, b = left_P[pair], right_P[pair]
        total = np.float32(0.0)
        for d in range(dim):
            total += template_TD[a, d] * template_TD[b, d]
        score_P[pair] = total
    return score_P


@numba.njit(parallel=True, cache=True)
def _pool(feature_ND, order_N, start_T, media_N, weight_N, keep_norms):
    templates, dim = start_T.size - 1, feature_ND.shape[1]
    template_TD = np.zeros((templates, dim), np.float32)
    for t in numba.prange(templates):
        whole, medium = np.zeros(dim, np.float64), np.zeros(dim, np.float64)
        count = 0
        for place in range(start_T[t], start_T[t + 1]):
            row = order_N[place]
            scale = np.float64(weight_N[row])
            if not keep_norms:
                length = 0.0
                for d in range(dim):
                    length += np.float64(feature_ND[row, d]) ** 2
                scale /= np.sqrt(length)
            for d in range(dim):
                medium[d] += scale * feature_ND[row, d]
            count += 1
            if place + 1 == start_T[t + 1] or media_N[place + 1] != media_N[place]:
                for d in range(dim):
                    whole[d] += medium[d] / count
                    medium[d] = 0.0
                count = 0
        length = np.sqrt(np.sum(whole * whole))
        for d in range(dim):
            template_TD[t, d] = whole[d] / length if length > 1e-12 else np.nan
    return template_TD
