"""PSNR and SSIM against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.image_metrics import psnr, ssim


def test_psnr_of_a_known_error():
    image = torch.full((2, 3, 16, 16), 0.5)
    assert psnr(image + 0.1, image).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)  # MSE .01
    assert psnr(image, image).tolist() == [float("inf")] * 2


def test_ssim_against_a_double_loop():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1, 3, 14, 13))
    b = 0.6 * a + 0.4 * b
    place = np.arange(11) - 5
    tap = np.exp(-(place**2) / 4.5)
    window = np.outer(tap, tap) / np.outer(tap, tap).sum()
    values = []
    for c in range(3):
        for i in range(4):
            for j in range(3):
                x, y = a[0, c, i : i + 11, j : j + 11], b[0, c, i : i + 11, j : j + 11]
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy, both = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2, (window * x * y).sum() - mx * my
                values.append((2 * mx * my + 1e-4) * (2 * both + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert float(ssim(torch.tensor(a), torch.tensor(b))) == pytest.approx(np.mean(values), abs=1e-9)
    assert float(ssim(torch.tensor(a), torch.tensor(a))) == pytest.approx(1.0)


def test_range_and_shape():
    with pytest.raises(ValueError, match="values in"):
        psnr(torch.full((1, 3, 16, 16), -1.0), torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="shape"):
        ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17))
