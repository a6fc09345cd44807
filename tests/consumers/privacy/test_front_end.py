"""The block-DCT front end against the published order of operations, the worked values of consumers.md §0.1, and itself backwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facefoundry.consumers.privacy.front_end import axis_matrices, dct_matrix, forward_dct, inverse_dct, spread, to_ycc


def published_forward(image_BCHW: torch.Tensor, align_corners: bool = True) -> torch.Tensor:
    """The seven steps in the paper code's order, one after the other."""
    rgb = F.interpolate((image_BCHW + 1) / 2, scale_factor=8, mode="bilinear", align_corners=align_corners) * 255
    r, g, b = rgb.unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb = 128 - 0.168735892 * r - 0.331264108 * g + 0.5 * b
    cr = 128 + 0.5 * r - 0.418687589 * g - 0.081312411 * b
    planes = torch.stack([y, cb, cr], 1) - 128
    blocks = planes.unflatten(2, (-1, 8)).unflatten(4, (-1, 8)).transpose(3, 4)  # B 3 i j 8 8
    d = torch.from_numpy(dct_matrix()).to(image_BCHW)
    return (d @ blocks @ d.T).permute(0, 1, 4, 5, 2, 3).reshape(len(rgb), 192, *blocks.shape[2:4])


def published_inverse(coefficient: torch.Tensor) -> torch.Tensor:
    n = coefficient.shape[-1]
    d = torch.from_numpy(dct_matrix()).to(coefficient)
    blocks = d.T @ coefficient.reshape(-1, 3, 8, 8, n, n).permute(0, 1, 4, 5, 2, 3) @ d
    y, cb, cr = (blocks.transpose(3, 4).reshape(-1, 3, 8 * n, 8 * n) + 128).unbind(1)
    rgb = torch.stack([y + 1.402 * (cr - 128), y - 0.344136286 * (cb - 128) - 0.714136286 * (cr - 128), y + 1.772 * (cb - 128)], 1)
    return F.interpolate(rgb / 255, scale_factor=1 / 8, mode="bilinear", align_corners=True).clamp(0, 1)


def test_pattern() -> torch.Tensor:
    c, i, j = np.ogrid[:3, :112, :112]
    return torch.from_numpy(((37 * i + 17 * j + 101 * c + i * j) % 256) / 255 * 2 - 1)[None].float()


test_pattern.__test__ = False


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(float((a - b).square().mean()))


@pytest.mark.parametrize("n", [16, 28, 56, 112])
def test_equals_the_published_order(n):
    image = torch.rand(2, 3, n, n, dtype=torch.float64) * 2 - 1
    wanted = published_forward(image)
    assert torch.allclose(forward_dct(image), wanted, atol=1e-9)  # dense path
    assert torch.allclose(forward_dct(image.float()).double(), wanted, atol=1e-3)  # compiled path
    assert torch.allclose(inverse_dct(wanted), published_inverse(wanted), atol=1e-9)


def test_constant_grey_and_red():
    grey = forward_dct(torch.full((1, 3, 112, 112), 200 / 127.5 - 1)).reshape(3, 64, 112, 112)
    assert torch.allclose(grey[0, 0], torch.tensor(576.0), atol=1e-3)
    grey[0, 0] = 0
    assert grey.abs().max() < 2e-4
    red = forward_dct(torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, 112, 112)).reshape(3, 64, 112, 112)
    assert torch.allclose(red[:, 0, 5, 5], torch.tensor([-414.04, -344.2212, 1020.0]), atol=1e-3)


def test_ramp_tells_rows_from_columns():
    d = dct_matrix()
    ramp = np.tile(np.arange(8.0), (8, 1))
    found = d @ ramp @ d.T
    assert np.allclose(found[0], [28, -18.2216, 0, -1.9048, 0, -0.5682, 0, -0.1434], atol=1e-4)
    assert np.allclose(found[1:], 0, atol=1e-12)
    # In an image that grows to the right, horizontal frequencies (v, channels 1…7) hold the energy and vertical ones (8, 16, …) none.
    energy = forward_dct(torch.linspace(-1, 1, 112).expand(1, 3, 112, 112)).reshape(3, 64, -1)[0].abs().mean(1)
    assert energy[1] > 1 and energy[8] < 1e-4


def test_worked_values():
    found = forward_dct(test_pattern()).reshape(3, 64, 112, 112)
    wanted = {(0, 0, 0, 0): -220.44252, (0, 1, 0, 0): -10.77070, (0, 8, 0, 0): -55.96832, (1, 9, 50, 60): -37.90922, (0, 0, 56, 56): -152.69567}
    for place, value in wanted.items():
        assert float(found[place]) == pytest.approx(value, abs=1e-3)
    assert float(found.double().sum()) == pytest.approx(-53352.988, abs=2)
    assert float(found.double().square().sum()) == pytest.approx(2.0468809e9, rel=1e-6)
    other = published_forward(test_pattern(), align_corners=False).reshape(3, 64, 112, 112)
    assert float(other[0, 0, 0, 0]) == pytest.approx(-315.003, abs=2e-3)  # the same pattern, so that the mistake would be seen


def test_one_pixel_touches_nine_blocks():
    image = torch.full((1, 3, 112, 112), -1.0)
    dark = forward_dct(image)
    image[:, :, 5, 7] = 1.0
    touched = (forward_dct(image) - dark).abs().amax((0, 1)) > 1e-3
    rows, columns = touched.nonzero(as_tuple=True)
    assert set(rows.tolist()) == {4, 5, 6} and set(columns.tolist()) == {6, 7, 8}


def test_there_and_back():
    image = test_pattern()
    assert psnr(inverse_dct(forward_dct(image)), (image + 1) / 2) == pytest.approx(30.0, abs=0.1)
    wave = torch.sin(torch.arange(112) / 112 * 2 * math.pi)
    smooth = (0.8 * wave[:, None] * wave[None]).expand(1, 3, 112, 112)
    assert psnr(inverse_dct(forward_dct(smooth)), (smooth + 1) / 2) > 60


def test_inverse_is_affine_and_has_a_null_space():
    a, b = torch.randn(2, 1, 192, 28, 28, dtype=torch.float64) * 30
    zero = inverse_dct(torch.zeros_like(a))
    assert torch.allclose(zero, torch.tensor(128 / 255, dtype=torch.float64))
    d = lambda x: inverse_dct(x, clamp=False)  # noqa: E731
    assert (d(a + b) - d(a) - d(b) + d(torch.zeros_like(a))).abs().max() < 1e-12
    rest = forward_dct(d(a).float() * 2 - 1).double() - a
    assert 0.9 < rest.norm() / a.norm() < 1.3  # 189 of 192 dimensions of a position are lost


def test_chosen_channels_and_their_places():
    image = torch.rand(2, 3, 28, 28) * 2 - 1
    everything = forward_dct(image).unflatten(1, (3, 64))
    code = torch.tensor([[9, 0, 63], [5, 40, 2]])
    some = forward_dct(image, code)
    for face in range(2):
        assert torch.equal(some[face].unflatten(0, (3, 3)), everything[face][:, code[face]])
    back = spread(some, code).unflatten(1, (3, 64))
    assert torch.equal(back[1][:, code[1]], everything[1][:, code[1]])
    assert int((back != 0).any(-1).any(-1).sum()) == 2 * 9


def test_gradients():
    image = (torch.rand(1, 3, 16, 16, dtype=torch.float64) * 2 - 1).requires_grad_()
    code = torch.tensor([[1, 8, 27]])
    assert torch.autograd.gradcheck(lambda x: forward_dct(x, code), image)
    single = image.detach().float().requires_grad_()
    weight = torch.randn(1, 9, 16, 16)
    (forward_dct(single, code) * weight).sum().backward()
    (forward_dct(image, code) * weight).sum().backward()
    assert torch.allclose(single.grad.double(), image.grad, rtol=1e-3, atol=1e-2)


def test_planes_and_bands():
    grey = to_ycc(torch.zeros(1, 3, 2, 2))
    assert torch.allclose(grey[0, :, 0, 0], torch.tensor([-0.5, 0, 0]), atol=1e-5)
    r = axis_matrices(112)
    far = np.abs(np.subtract.outer(np.arange(112), np.arange(112))) > 1
    assert np.abs(r[:, far]).max() == 0
    assert [int(np.linalg.matrix_rank(one, tol=1e-6 * np.linalg.norm(one, 2))) for one in r][0] == 112


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="B 3 n n"):
        forward_dct(torch.zeros(1, 3, 112, 96))
    with pytest.raises(ValueError, match="192"):
        inverse_dct(torch.zeros(1, 189, 16, 16))
