"""The residual's worked example, views without resizing, tokens that are places."""

from __future__ import annotations

import torch
from facefoundry.consumers.aigi.artifact import ArtifactBranch, ArtifactConfig, artifact_view, npr, tokens_of


def test_residual_worked_example():
    x = torch.tensor([[1, 2, 5, 5], [3, 4, 5, 5], [0, 0, 8, 0], [0, 4, 0, 8]], dtype=torch.float32)[None, None]
    expected = torch.tensor([[0, 0.6667, 0, 0], [1.3333, 2, 0, 0], [0, 0, 0, -5.3333], [0, 2.6667, -5.3333, 0]])
    torch.testing.assert_close(npr(x)[0, 0], expected, atol=1e-4, rtol=0)


def test_residual_of_even_pixels_is_zero_and_odd_edges_are_cut():
    found = npr(torch.randn(2, 3, 7, 9))
    assert found.shape == (2, 3, 6, 8)
    assert (found[:, :, ::2, ::2] == 0).all()


def test_resizing_destroys_the_cue():
    small = torch.randn(1, 3, 32, 32)
    grown = torch.nn.functional.interpolate(small, scale_factor=2, mode="nearest")
    assert npr(grown).abs().max() == 0  # what a nearest-neighbour generator leaves
    assert npr(torch.nn.functional.interpolate(grown, size=96, mode="bilinear")).abs().mean() > 0.05


def test_view_crops_the_middle_and_tiles_the_small():
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    torch.testing.assert_close(artifact_view(x, 4), x[:, :, 1:5, 1:5])
    tiled = artifact_view(x, 12)
    torch.testing.assert_close(tiled[:, :, 6:, :6], x)


def test_defect_tokens_are_no_places():
    x = torch.zeros(1, 4, 3, 3)
    x[:, :, 1, 2] = 1.0  # one place, all channels
    right, released = tokens_of(x)[0], tokens_of(x, release_compatible=True)[0]
    assert right.shape == released.shape == (9, 4)
    assert right.any(1).nonzero().flatten().tolist() == [5]
    assert released.any(1).sum() == 4  # the released reading spreads it
    channels = torch.arange(512.0).reshape(1, 512, 1, 1).expand(1, 512, 14, 14)
    assert tokens_of(channels, release_compatible=True)[0, 1].unique().tolist() == [2.0, 3.0, 4.0, 5.0]  # token 1 mixes channels 2-5
    assert tokens_of(channels)[0, 1].tolist() == list(range(512))


def test_token_sees_its_place():
    torch.manual_seed(0)
    branch = ArtifactBranch(ArtifactConfig(widths=(8, 8), grid=7)).eval()
    image = 0.1 * torch.randn(1, 3, 112, 112)
    changed = image.clone()
    changed[:, :, 33:47, 65:79] += 0.5 * torch.randn(1, 3, 14, 14)  # inside row 2, column 4 of the grid
    with torch.no_grad():
        moved = (branch(changed)[0] - branch(image)[0]).abs().sum(2).reshape(7, 7)
    assert divmod(int(moved.argmax()), 7) == (2, 4)
    assert (moved > 1e-6).sum() <= 9


def test_mean_logit_is_the_head_on_the_mean():
    branch = ArtifactBranch(ArtifactConfig(widths=(8, 8), grid=7)).eval()
    token_BNC, logit_BN = branch(torch.rand(2, 3, 112, 112))
    assert token_BNC.shape == (2, 49, 8)
    torch.testing.assert_close(logit_BN.mean(1), branch.head(token_BNC.mean(1))[:, 0])
