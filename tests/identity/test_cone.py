"""The cone law: cosine to the anchor uniform above its bound, direction uniform across it, each row from its own seed."""

import numpy as np
import pytest

from facefoundry.identity.cone import perturb_cone


def anchors(count: int, dim: int = 16) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_cosines_are_uniform_above_the_bound_and_directions_have_no_preference():
    count, lower = 4000, 0.6
    anchor = np.repeat(anchors(1), count, 0)
    turned = perturb_cone(anchor, range(count), lower)
    cosine = (turned * anchor).sum(1)
    assert np.allclose(np.linalg.norm(turned, axis=1), 1, atol=1e-6) and turned.dtype == np.float32
    assert cosine.min() >= lower - 1e-6 and cosine.max() <= 1 + 1e-6
    # U[0.6, 1]: quartiles at 0.7, 0.8, 0.9; 4000 draws settle them to 0.003 (one standard error).
    assert np.allclose(np.quantile(cosine, [0.25, 0.5, 0.75]), [0.7, 0.8, 0.9], atol=0.015)
    across = turned - cosine[:, None] * anchor
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    assert np.linalg.norm(across.mean(0)) < 0.05
    # A uniform direction in the 15 dimensions across the anchor: second moments 1/15 there, nothing along it.
    moments = np.linalg.eigvalsh(across.T @ across / count)
    assert abs(moments[0]) < 1e-6 and np.all(np.abs(moments[1:] - 1 / 15) < 0.02)


def test_a_row_depends_on_its_anchor_and_seed_alone():
    anchor = anchors(5)
    whole = perturb_cone(anchor, [3, 1, 4, 1, 5], 0.7)
    assert np.array_equal(whole[2:], perturb_cone(anchor[2:], [4, 1, 5], 0.7))
    assert not np.allclose(whole[0], perturb_cone(anchor[:1], [9], 0.7)[0])


def test_the_bound_one_returns_the_anchors_themselves():
    assert np.array_equal(perturb_cone(anchors(3), [1, 2, 3], 1.0), anchors(3))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 16\), expected \(3 D\)"):
        perturb_cone(anchors(2), [1, 2, 3], 0.5)
    with pytest.raises(ValueError, match="not unit length"):
        perturb_cone(2 * anchors(1), [1], 0.5)
    with pytest.raises(ValueError, match="lower is 1.2"):
        perturb_cone(anchors(1), [1], 1.2)
