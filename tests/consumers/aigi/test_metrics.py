"""Average precision against scikit-learn, hard answers, wear that is the same for both classes."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.consumers.aigi.metrics import accuracies, answer_score, average_precision, precisions
from facefoundry.consumers.aigi.wear import WearConfig, wear, worn
from facefoundry.core.errors import UserError
from sklearn.metrics import average_precision_score


@pytest.mark.parametrize("step", [0.0, 0.1, 0.5])
def test_average_precision_is_scikit_learns(step):
    rng = np.random.default_rng(0)
    fake = rng.random(300) < 0.3
    score = rng.normal(fake * 0.8)
    score = np.round(score / step) * step if step else score  # ties
    assert average_precision(score, fake) == pytest.approx(average_precision_score(fake, score), abs=1e-12)
    assert len(precisions(score, fake)) == fake.sum()


def test_average_precision_by_hand():
    assert average_precision(np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0])) == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(UserError, match="no fake"):
        average_precision(np.zeros(3), np.zeros(3))


def test_defect_precision_from_hard_answers():
    """A model that ranks perfectly but leans to "real": the released score throws the ranking away."""
    fake = np.arange(20) >= 10
    p_fake = np.where(fake, 0.30, 0.10) + 0.001 * np.arange(20)
    p_fake[-2:] = 0.55
    p_real = 0.9 - p_fake
    assert average_precision(answer_score(p_fake, p_real), fake) == 1.0
    hard = answer_score(p_fake, p_real, release_compatible=True)
    assert set(hard) == {0.0, 1.0}
    assert average_precision(hard, fake) == pytest.approx((2 * 1.0 + 8 * 0.5) / 10)
    np.testing.assert_allclose(answer_score([0.2, 0.0], [0.2, 0.0]), [0.5, 0.0])


def test_accuracy_by_class():
    found = accuracies(np.array([0.1, 0.6, 0.5, 0.9, 0.4]), np.array([0, 0, 1, 1, 1]))
    assert found == {"real": 0.5, "fake": pytest.approx(2 / 3), "balanced": pytest.approx(7 / 12)}


def test_wear_is_a_function_of_the_generator():
    image = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    config = WearConfig(chance=0.7)
    first, second = (wear(image, config, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != wear(image, config, np.random.default_rng(4))).any()
    np.testing.assert_array_equal(wear(image, WearConfig(chance=0, flip=0), np.random.default_rng(0)), image)
    np.testing.assert_array_equal(wear(image, WearConfig(chance=0, flip=1), np.random.default_rng(0)), image[:, :, ::-1])


@pytest.mark.parametrize(("kind", "mild", "strong"), [("jpeg", 95, 20), ("blur", 0.4, 2.0), ("resize", 0.9, 0.3)])
def test_wear_grows_with_its_strength(kind, mild, strong):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    changes = [np.abs(worn(image, kind, value).astype(float) - image).mean() for value in (mild, strong)]
    assert worn(image, kind, mild).shape == image.shape and 0 < changes[0] < changes[1]
