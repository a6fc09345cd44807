"""The tokenizer: nearest rows, straight-through gradient, refinement, files, and its promise as a first stage."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facefoundry.consumers.tokenizer.glotok import GloTokConfig, load_glotok, save_glotok
from facefoundry.consumers.tokenizer.residual import ResidualRefinement, residual_loss
from facefoundry.core.errors import UserError
from facefoundry.generators.registry import AUTOENCODERS
from facefoundry.generators.train import load_autoencoder
from facefoundry.generators.uiface import UIFace, UIFaceSampler
from facefoundry.generators.unet import FamilyUNet, UNetConfig


@pytest.fixture(scope="module")
def tokenizer():
    return GloTokConfig.tiny().eval()


def faces(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def small(**changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return GloTokConfig(**{"fold": 8, "widths": (16, 16), "groups": 4, "semantic": 12, "visual": 20, "residual_width": 32, **changes}).build()


@torch.no_grad()
@pytest.mark.parametrize("lookup", ["cosine", "euclidean"])
def test_tokens_name_the_nearest_rows(lookup):
    network = small(lookup=lookup)
    code_BDHW = network.codes(faces())
    token_B2HW = network.tokens(faces())
    for book in (0, 1):
        flat = code_BDHW.chunk(2, 1)[book].movedim(1, -1).reshape(-1, 8)
        rows = network.rows(book)
        distance = torch.stack([((flat - row) ** 2).sum(1) for row in rows], 1)
        assert torch.equal(distance.argmin(1), token_B2HW[:, book].flatten())
        if lookup == "cosine":
            assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-5) and torch.allclose(flat.norm(dim=1), torch.ones(len(flat)), atol=1e-5)
            assert torch.equal((flat @ rows.T).argmax(1), token_B2HW[:, book].flatten())


def shared_direction(code_BDHW: torch.Tensor) -> float:
    """Length of the mean of unit codes, squared: the mean cosine of their pairs, self-pairs too."""
    return float(code_BDHW[:, :8].movedim(1, -1).flatten(0, 2).mean(0).square().sum())


@torch.no_grad()
def test_settled_outputs_have_mean_0_and_covariance_1():
    network, seen = small(), faces(6, seed=1) * torch.linspace(0.2, 1, 6)[:, None, None, None]
    before = shared_direction(network.codes(seen))
    network.settle(seen)
    for adapter in network.adapters:
        output_ND = adapter(network._features(seen)).movedim(1, -1).flatten(0, 2)
        assert output_ND.mean(0).abs().max() < 1e-3
        torch.testing.assert_close(torch.cov(output_ND.T), torch.eye(8), atol=1e-2, rtol=0)
    assert before > 0.3 and shared_direction(network.codes(seen)) < 0.1
    again = small()
    again.settle(torch.zeros(2, 3, 112, 112))  # no difference anywhere: nothing blows up
    assert torch.isfinite(again.codes(seen)).all()


def test_gradient_passes_straight_through_and_commitment_has_both_sides():
    network = small(residual=False)
    code_BDHW = network._unit(torch.randn(2, 16, 7, 7)).requires_grad_()
    found, upstream = network.quantise(code_BDHW), torch.randn(2, 16, 7, 7)
    (found.code_BDHW * upstream).sum().backward()
    assert torch.allclose(code_BDHW.grad, upstream, atol=1e-6)
    assert all(book.embedding.parametrizations.weight.original.grad is None for book in network.books)
    # ‖sg[Z] - Ẑ‖² + β ‖sg[Ẑ] - Z‖², of each book: by hand.
    rows = network.embed(found.token_B2HW)
    per_book = [(a - b).square().mean() for a, b in zip(code_BDHW.chunk(2, 1), rows.chunk(2, 1))]
    assert torch.allclose(found.commitment, 1.25 * sum(per_book), atol=1e-6)
    code_BDHW.grad = None
    network.quantise(code_BDHW).commitment.backward()
    wanted = torch.cat([0.25 * 2 * (a - b) / a.numel() for a, b in zip(code_BDHW.chunk(2, 1), rows.chunk(2, 1))], 1)
    assert torch.allclose(code_BDHW.grad, wanted, atol=1e-7)  # only the commitment's share, β
    assert all(book.embedding.parametrizations.weight.original.grad.abs().max() > 0 for book in network.books)


def test_refinement_starts_as_nothing_and_its_loss_leaves_the_encoder_alone(tokenizer):
    network = small()
    code_BDHW = network._unit(torch.randn(2, 16, 7, 7)).requires_grad_()
    found = network.quantise(code_BDHW)
    assert torch.equal(found.code_BDHW, found.plain_BDHW)  # R = 0: plain VQ
    for refine in network.refine:
        nn.init.normal_(refine.project_out.weight)
    found = network.quantise(code_BDHW)
    assert not torch.allclose(found.code_BDHW, found.plain_BDHW)
    found.residual.backward()
    assert code_BDHW.grad is None or not code_BDHW.grad.any()
    assert network.refine[0].project_out.weight.grad.abs().max() > 0


def test_residual_loss_by_hand_and_no_gradient_to_what_came_before():
    before, quantised, residual = (torch.randn(1, 2, 1, 2, requires_grad=True) for _ in range(3))
    loss = residual_loss(before, quantised, residual)
    wanted = sum((b - q - r) ** 2 for b, q, r in zip(*(x.flatten().tolist() for x in (before, quantised, residual)))) / 4
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    loss.backward()
    assert before.grad is None and residual.grad.abs().max() > 0


def test_refinement_can_learn_what_quantisation_took():
    torch.manual_seed(0)
    refine, rows = ResidualRefinement(4, 9, width=32), torch.randn(5, 4)
    token = torch.randint(5, (16, 9))
    quantised = F.embedding(token, rows).transpose(1, 2).unflatten(2, (3, 3))
    before = quantised + 0.3 * quantised.roll(1, 3)  # what is missing follows from the neighbour
    optimiser = torch.optim.Adam(refine.parameters(), lr=3e-3)
    first = residual_loss(before, quantised, refine(quantised)).item()
    for _ in range(150):
        optimiser.zero_grad()
        loss = residual_loss(before, quantised, refine(quantised))
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3 * first


@torch.no_grad()
def test_a_face_by_its_tokens_is_the_decoded_face(tokenizer):
    image = faces()
    latent = tokenizer.encode(image)
    assert latent.shape == (2, *tokenizer.latent_shape) == (2, 16, 7, 7)
    assert latent.square().mean().item() == pytest.approx(1, abs=1e-4)  # about unit variance, for denoisers
    by_tokens = tokenizer.decode_tokens(tokenizer.tokens(image))
    assert by_tokens.shape == (2, 3, 112, 112)
    assert torch.allclose(tokenizer.decode(latent), by_tokens, atol=1e-4)
    assert torch.allclose(tokenizer.decode(3.0 * latent), by_tokens, atol=1e-4)  # by cosine a latent's length does not count


@torch.no_grad()
def test_smaller_working_size():
    network = small(side=64)
    assert network.latent_shape == (16, 4, 4)
    assert network.decode(network.encode(faces())).shape == (2, 3, 112, 112)


def test_the_first_stage_of_a_generator(tokenizer, tmp_path):
    """A generator that never imports consumers draws through it."""
    save_glotok(tmp_path / "glotok.safetensors", tokenizer, facts={"steps": 1})
    stage = load_autoencoder(tmp_path / "glotok.safetensors")
    config = UNetConfig(channels=16, width=16, multipliers=(1,), attention=(True,), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4)
    sampler = UIFaceSampler(steps=3)
    anchor = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(1))).numpy()
    batch = UIFace(FamilyUNet(config), stage, sampler, torch.device("cpu"), "fp32").generate(anchor, [1, 2])
    assert batch.image_BCHW.shape == (2, 3, 112, 112) and batch.image_BCHW.abs().max() <= 1
    assert (batch.image_BCHW[0] - batch.image_BCHW[1]).abs().max() > 0


def test_registry_and_file(tokenizer, tmp_path):
    assert AUTOENCODERS["glotok"] is GloTokConfig
    save_glotok(tmp_path / "glotok.safetensors", tokenizer, facts={"steps": 7})
    back, facts = load_glotok(tmp_path / "glotok.safetensors")
    assert facts["steps"] == 7 and back.config == tokenizer.config
    with torch.no_grad():
        assert torch.equal(back.decode(back.encode(faces())), tokenizer.decode(tokenizer.encode(faces())))
    with pytest.raises(UserError, match="'patch', expected a tokenizer"):
        load_glotok("autoencoder-small")
    with pytest.raises(UserError, match="no weights file"):
        load_glotok(tmp_path / "none.safetensors")


def test_bad_settings_and_tokens(tokenizer):
    with pytest.raises(UserError, match="a side that 12 divides"):
        GloTokConfig.parse({"fold": 6, "widths": (16, 16)})
    with pytest.raises(UserError, match="multiples of groups"):
        GloTokConfig.parse({"widths": (24, 40), "groups": 16})
    token = torch.zeros(1, 2, 7, 7, dtype=torch.int64)
    token[0, 0, 3, 3] = 12
    with pytest.raises(UserError, match="semantic tokens 0 to 12, but the book has rows 0 to 11"):
        tokenizer.decode_tokens(token)
    with pytest.raises(ValueError, match="token_B2HW"):
        tokenizer.decode_tokens(torch.zeros(1, 7, 7, dtype=torch.int64))
