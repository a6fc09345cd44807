"""Pictures of any shape in the network's frame and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.consumers.segmentation.frame import Frame


@pytest.mark.parametrize("picture_px", [(240, 320), (200, 200), (31, 90), (64, 48), (48, 64)])
def test_there_and_back(picture_px):
    frame = Frame(picture_px, (48, 64))
    height, width = frame.inner_px
    assert height == 48 or width == 64
    assert height / width == pytest.approx(picture_px[0] / picture_px[1], rel=0.04)  # not stretched
    y, x = torch.meshgrid(*(torch.linspace(0, 1, side) for side in picture_px), indexing="ij")
    slope = (x + 2 * y)[None, None]
    there = frame.put(slope)
    assert there.shape == (1, 1, 48, 64)
    back = frame.back(there)
    assert back.shape == slope.shape
    assert (back - slope).abs().max() < 0.08


def test_margins_repeat_the_border_and_hold_no_label():
    frame = Frame((20, 20), (20, 40))
    assert frame.inner_px == (20, 20) and frame.offset_px == (0, 10)
    picture = torch.arange(20.0).expand(20, 20)
    there = frame.put(picture[None, None])[0, 0]
    assert (there[:, :10] == 0).all() and (there[:, 30:] == 19).all()
    torch.testing.assert_close(frame.back(there[None, None])[0, 0], picture)
    label = frame.put_labels(torch.full((1, 20, 20), 3, dtype=torch.uint8))
    assert label.dtype == torch.uint8 and label[0, :, 10:30].eq(3).all() and label.sum() == 3 * 400


def test_labels_are_nearest_never_mixed():
    label = torch.from_numpy(np.random.default_rng(0).choice([0, 3], (1, 61, 80)).astype(np.uint8))
    assert set(Frame((61, 80), (32, 48)).put_labels(label).unique().tolist()) <= {0, 3}
