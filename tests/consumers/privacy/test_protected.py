"""What every image method promises: shapes, fresh secrets, bytes that hold neither picture nor key, files of each side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.draws import SecretDraws, TorchDraws
from facefoundry.consumers.privacy.protected import CLIENT_FILE, PRIVACY_METHODS, SERVER_FILE, Client, Server, load_method, split
from facefoundry.core.errors import UserError
from facefoundry.core.files import write_bytes
from facefoundry.recognition.backbones import BackboneConfig

IMAGE_METHODS = ("dctdp", "duetface", "minusface", "partialface")
KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def faces():
    image_BHWC = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    return torch.from_numpy(image_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def seeded(n=0):
    return TorchDraws(torch.Generator().manual_seed(n))


def test_the_registry_finds_them():
    assert set(IMAGE_METHODS) <= set(PRIVACY_METHODS)
    with pytest.raises(UserError, match="did you mean 'duetface'"):
        PRIVACY_METHODS["duet-face"]


@pytest.mark.parametrize("name", IMAGE_METHODS)
class TestEveryMethod:
    def test_both_sides(self, name, faces):
        method = PRIVACY_METHODS[name].tiny()
        before = torch.random.get_rng_state()
        sent = method.protect(faces)
        assert torch.equal(before, torch.random.get_rng_state())  # secrets do not come from torch's generator
        embed = method.recognise(sent)
        assert embed.shape == (3, 16) and torch.allclose(embed.norm(dim=1), torch.ones(3), atol=1e-5)
        assert method.view(sent).shape == (3, 3, 16, 16)
        assert set(sent.tensors) == {field.name for field in method.client.fields}
        for field in method.client.fields:
            assert tuple(sent.tensors[field.name].shape[1:]) == field.shape

    def test_what_crosses_is_bytes_without_the_picture_or_the_key(self, name, faces):
        method = PRIVACY_METHODS[name].tiny()
        client, server = split(method, key=KEY)
        data = client.request(faces)
        assert type(data) is bytes
        overhead = len(data) - 3 * method.bytes_per_face
        assert 0 < overhead < 400  # header, nonce, tag: no room for anything else
        assert KEY not in data
        for picture in (faces, method.client.seen(faces)):
            for raw in (picture.numpy(), ((picture + 1) * 127.5).round().byte().numpy()):
                assert raw[0, 0, 8:10].tobytes() not in data and raw[0].tobytes()[:256] not in data
        assert torch.allclose(server.embed(data), method.recognise(server_side(method, data)), atol=1e-6)
        with pytest.raises(UserError, match="replayed"):
            server.embed(data)
        with pytest.raises(UserError, match="key"):
            Server(method.name, method.server, method.client.fields, key=b"x" * 32).embed(client.request(faces))

    def test_the_same_face_is_protected_freshly(self, name, faces):
        method = PRIVACY_METHODS[name].tiny()
        twice = faces[:1].expand(2, -1, -1, -1)
        main = "image" if name == "minusface" else "coefficients"
        one, two = method.protect(twice, draws=seeded(1)).tensors[main], method.protect(twice, draws=seeded(2)).tensors[main]
        same = name == "duetface"  # no secret in it
        assert torch.equal(one, two) == same and torch.equal(one[0], one[1]) == same

    def test_files_of_the_two_sides(self, name, faces, tmp_path):
        method = PRIVACY_METHODS[name].tiny()
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        method.save(tmp_path, facts={"from": "test"})
        client, server = Client.load(tmp_path / CLIENT_FILE), Server.load(tmp_path / SERVER_FILE)
        wanted = method.recognise(method.protect(faces, draws=seeded()))
        again = load_method(tmp_path)
        assert torch.allclose(again.recognise(again.protect(faces, draws=seeded())), wanted, atol=1e-6)
        assert server.embed(client.request(faces)).shape == (3, 16)
        assert not any(key.startswith("server") or "project" in key for key in client._part.state_dict() if name != "duetface")
        with pytest.raises(UserError, match="expected 'privacy-server'"):
            Server.load(tmp_path / CLIENT_FILE)
        write_bytes(tmp_path / SERVER_FILE, (tmp_path / SERVER_FILE).read_bytes()[:-40])
        with pytest.raises(UserError, match="damaged"):
            load_method(tmp_path)

    def test_half_precision_halves_the_message(self, name, faces):
        cls = PRIVACY_METHODS[name]
        tiny = cls.tiny()
        half = cls(tiny.settings.model_copy(update={"half": True}), tiny.backbone).eval()
        client, server = split(half)
        assert half.bytes_per_face < 0.55 * tiny.bytes_per_face
        assert server.embed(client.request(faces)).shape == (3, 16)

    def test_bad_input(self, name, faces):
        method = PRIVACY_METHODS[name].tiny()
        for bad in (faces[:, :, :100], faces * 2, faces * torch.nan):
            with pytest.raises(ValueError, match="image_BCHW"):
                method.protect(bad)
        with pytest.raises(UserError, match="leave 'init'"):
            cls = type(method)
            cls.Recipe.parse({"backbone": {"shrink": 2}})

    def test_gradients_reach_the_server(self, name, faces):
        method = PRIVACY_METHODS[name].tiny().train()
        method(faces).square().sum().backward()
        stem = next(p for key, p in method.server.named_parameters() if "stem" in key)
        assert stem.grad.abs().sum() > 0


def server_side(method, data):
    return Server(method.name, method.server, method.client.fields, key=KEY).receive(data)


def test_the_published_sizes_of_a_query():
    wanted = {"minusface": 0.15, "partialface": 1.35, "duetface": 8.13, "dctdp": 9.48}
    for name, megabytes in wanted.items():
        cls = PRIVACY_METHODS[name]
        settings = cls.Settings(widths=(4, 8)) if name == "minusface" else cls.Settings(client_width=0.125) if name == "duetface" else cls.Settings()
        assert sum(field.row_bytes for field in cls.build_client(settings).fields if field.name in ("coefficients", "image")) / 1e6 == pytest.approx(megabytes, abs=0.005)


@pytest.mark.parametrize("draws", [SecretDraws(), seeded(7)])
def test_draws(draws):
    ranks = draws.below(20000, 5)
    assert torch.bincount(ranks, minlength=5).float().div(20000).sub(0.2).abs().max() < 0.02
    orders = draws.permutations(2000, 6)
    assert (orders.sort(1).values == torch.arange(6)).all() and (orders[:, 0].float().mean() - 2.5).abs() < 0.2
    x = draws.laplace((400_000,))
    assert x.isfinite().all() and abs(float(x.mean())) < 0.02 and float(x.abs().mean()) == pytest.approx(1, abs=0.02)
    assert float((x.abs() > 3).float().mean()) == pytest.approx(np.exp(-3), abs=0.003) and float((x > 0).float().mean()) == pytest.approx(0.5, abs=0.005)


def test_secret_draws_differ():
    a, b = (SecretDraws().permutations(1, 192) for _ in range(2))
    assert not torch.equal(a, b)


def test_backbone_channels():
    network = BackboneConfig(name="ir-18", width=0.125, embed_dim=8, channels=27, side=28).build().eval()
    assert network(torch.zeros(1, 27, 28, 28)).shape == (1, 8)
