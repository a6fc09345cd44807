"""DuetFace: the split, the mask, the interactive block, and who learns when."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.duetface import CLIENT_CHANNELS, SERVER_CHANNELS, DuetFace, DuetFaceClient, DuetFaceServer, DuetFaceSettings, InteractiveBlock, attention_mask, resized_mask
from facefoundry.consumers.privacy.draws import TorchDraws
from facefoundry.consumers.privacy.face_region import face_region, hull_mask
from facefoundry.recognition.backbones import BackboneConfig


def test_the_split_is_complete():
    assert set(CLIENT_CHANNELS) | set(SERVER_CHANNELS) == set(range(64)) and not set(CLIENT_CHANNELS) & set(SERVER_CHANNELS)
    assert (3 * len(CLIENT_CHANNELS), 3 * len(SERVER_CHANNELS)) == (30, 162)
    assert {10, 17} <= set(SERVER_CHANNELS) and set(CLIENT_CHANNELS) == {0, 1, 2, 3, 4, 5, 8, 9, 16, 24}


def test_worked_mask_and_block():
    mean = torch.tensor([[0.0, 2], [4, 8]])[None, None]
    two_channels = torch.cat([mean - 1, mean + 1], 1)
    region = torch.tensor([[1.0, 0], [1, 1]])[None, None]
    mask = attention_mask(two_channels, region)
    assert torch.allclose(mask[0, 0], torch.tensor([[0.0, 0], [0.5, 1]]), atol=1e-5)
    block = InteractiveBlock()
    block.weight.data.fill_(0.5)
    found = block(torch.tensor([[0.0, 1], [-1, 2]])[None, None], mask)
    assert torch.allclose(found[0, 0], torch.tensor([[0.5, 0.731059], [0.336177, 1.321196]]), atol=1e-5)


def test_outside_the_face_nothing_changes_also_for_negative_maps():
    region = face_region(torch.zeros(1, 3, 112, 112), 28, landmarks=False)
    mask = attention_mask(torch.randn(1, 5, 28, 28) - 4, region)
    assert (mask[region == 0] == 0).all() and mask.max() == pytest.approx(1, abs=1e-4)
    larger = resized_mask(mask, region, torch.zeros(1, 1, 56, 56))
    outside = torch.nn.functional.interpolate(region, (56, 56), mode="bilinear", align_corners=True) == 0
    assert (larger[outside] == 0).all() and larger.max() > 0.6
    assert torch.isfinite(attention_mask(torch.full((1, 4, 7, 7), 3.0), region)).all()  # the public code divides 0 by 0


def test_hull():
    square = np.array([(2, 1), (5, 1), (5, 3), (2, 3), (3, 2)])
    mask = hull_mask(square, 8, 8)
    assert mask.sum() == 4 * 3 and mask[1:4, 2:6].all()
    area = face_region(torch.zeros(2, 3, 112, 112), 112, landmarks=False).sum((1, 2, 3))
    assert area[0] == area[1] == pytest.approx(4901, rel=0.02)


@pytest.mark.parametrize(("name", "stages"), [("ir-18", [56, 28, 14, 7]), ("mobilefacenet", [56, 28, 14, 7])])
def test_stages_and_shapes_at_112(name, stages):
    settings = DuetFaceSettings(client_width=0.125, landmarks=False)
    client, server = DuetFaceClient(settings), DuetFaceServer(settings, BackboneConfig(name=name, width=0.125, embed_dim=8)).eval()
    assert [shape[1] for shape in client.tap_shapes] == [28, 14, 7, 7]
    seen = []
    for block in server.blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(out.shape[2]))
    with torch.no_grad():
        server(**client(torch.rand(1, 3, 112, 112) * 2 - 1, TorchDraws()))
    assert seen == stages


def test_weight_zero_makes_the_server_independent_of_the_client():
    method = DuetFace.tiny()
    face = torch.rand(2, 3, 112, 112) * 2 - 1
    sent = dict(method.protect(face).tensors)
    other = {name: torch.rand_like(value) if name.startswith("map_") else value for name, value in sent.items()}
    with torch.no_grad():
        assert torch.equal(method.server(**sent), method.server(**other))
        for block in method.server.blocks:
            block.weight.fill_(1.0)
        assert not torch.allclose(method.server(**sent), method.server(**other))


def test_the_client_is_frozen_in_the_second_training():
    method = DuetFace.tiny().train()
    before = {name: value.clone() for name, value in method.client.state_dict().items()}
    method(torch.rand(4, 3, 112, 112) * 2 - 1).square().sum().backward()
    assert all(parameter.grad is None for parameter in method.client.parameters())
    assert all(torch.equal(before[name], value) for name, value in method.client.state_dict().items())  # batch statistics, too
    assert all(block.weight.grad is not None for block in method.server.blocks)


def test_released_interface_is_random_and_masks_never_leave_zero_one():
    settings = DuetFaceSettings(side=16, client_width=0.125, landmarks=False, release_compatible=True)
    method = DuetFace(settings, BackboneConfig(embed_dim=8, width=0.125)).eval()
    for block in method.server.blocks:
        block.weight.data.fill_(1.0)
    sent = method.protect(torch.rand(2, 3, 112, 112) * 2 - 1)
    assert sent.tensors["map_0"].shape[1] > 1  # whole feature maps
    one, two = (method.recognise(sent) for _ in range(2))
    assert not torch.equal(one, two)


def test_landmarks_follow_the_face():
    archive = Path(__file__).resolve().parents[4] / "shared" / "data" / "faces" / "train112.zip"
    if not archive.is_file():
        pytest.skip("needs a real aligned face (shared/data beside the repository)")
    pytest.importorskip("dlib")
    from facefoundry.core.images import decode, to_float

    with zipfile.ZipFile(archive) as faces:
        photo = faces.read(min(name for name in faces.namelist() if Path(name).parent.name.startswith("lfw_") and name.endswith(".jpg")))
    face = to_float(decode(photo)[None])
    region, median = (face_region(face, 56, landmarks=found) for found in (True, False))
    both, either = (region * median).sum(), (region + median).clamp(max=1).sum()
    assert both / either > 0.7
