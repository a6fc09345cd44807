"""Paired perceptual distance against the definition, and whom its loss teaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facefoundry.core.perceptual import paired_distances, perceptual_loss


class Eyes:
    """Two maps: the picture itself and its blocks of 2x2."""

    name = "toy"

    def __init__(self):
        self.seen = []

    def maps(self, image_BCHW):
        with torch.inference_mode():
            return self.live_maps(image_BCHW)

    def live_maps(self, image_BCHW):
        self.seen.append(len(image_BCHW))
        return [image_BCHW, torch.nn.functional.avg_pool2d(image_BCHW, 2)]


def test_distance_of_pairs_is_the_loop_over_positions():
    rng = np.random.default_rng(0)
    ones, others = ([torch.tensor(rng.standard_normal(shape), dtype=torch.float32) for shape in ((3, 4, 5, 5), (3, 6, 2, 2))] for _ in range(2))
    found = paired_distances(ones, others)
    for i in range(3):
        layers = []
        for one, other in zip(ones, others):
            gaps = [one[i, :, y, x] / one[i, :, y, x].norm() - other[i, :, y, x] / other[i, :, y, x].norm() for y in range(one.shape[2]) for x in range(one.shape[3])]
            layers.append(np.mean([float(gap.square().sum()) for gap in gaps]))
        assert float(found[i]) == pytest.approx(np.mean(layers), rel=1e-5)
    assert paired_distances(ones, ones).abs().max() == 0
    with pytest.raises(ValueError):
        paired_distances(ones, others[:1])


def test_the_loss_looks_at_a_share_and_teaches_what_was_found():
    eyes, found, wanted = Eyes(), torch.randn(4, 3, 8, 8, requires_grad=True), torch.randn(4, 3, 8, 8, requires_grad=True)
    loss = perceptual_loss(eyes, found, wanted, 0.5)
    loss.backward()
    assert eyes.seen == [2, 2] and wanted.grad is None
    assert found.grad[:2].abs().min() > 0 and not found.grad[2:].any()
    assert float(loss) == pytest.approx(float(paired_distances(eyes.live_maps(found), eyes.live_maps(wanted))[:2].mean()), rel=1e-6)
    assert perceptual_loss(eyes, found, wanted, 0.01).isfinite() and eyes.seen[-1] == 1
