"""ID³: the objective's terms, the adjusted field against closed forms and finite differences, conditions, redraws."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facefoundry.core.errors import UserError
from facefoundry.core import training
from facefoundry.core.seeds import derive_seed
from facefoundry.core.training import LoopConfig
from facefoundry.core.types import FaceBatch
from facefoundry.core.weights import load_weights, save_weights
from facefoundry.generators.ancestral import Ancestral
from facefoundry.generators.attributes import AttributeEmbedding, AttributeLaw, fit_law, mirrored
from facefoundry.generators.id3 import ID3Config, ID3Sampler, ToyEmbedder, adjusted, identity_gradient
from facefoundry.generators.id3_loss import ID3Objective, IdentityTerm, identity_weight
from facefoundry.generators.id3_network import ID3Network, ID3NetworkConfig, load_id3, warm_start
from facefoundry.generators.id3_train import Id3Batches, Id3Recipe, train_id3
from facefoundry.generators.pixel import PixelAutoencoder, open_autoencoder
from facefoundry.generators.redraw import Redraw, with_redraws
from facefoundry.generators.schedule import alpha_bars
from facefoundry.generators.solvers import Point
from facefoundry.generators.train import DenoiserRecipe
from facefoundry.generators.uiface import UIFaceConfig
from facefoundry.generators.unet import UNetConfig

UNET = UNetConfig(channels=192, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4, context_dropout=0.0, prediction="v")
NAMES = ("age_years", "yaw_deg", "pitch_deg", "roll_deg")


def recipe(steps: int = 4, term: IdentityTerm = IdentityTerm(share=1.0), **denoiser) -> Id3Recipe:
    loop = LoopConfig(steps=steps, batch=6, optimiser="adamw", lr=2e-3, warmup=0, weight_decay=0, checkpoint_every=2)
    return Id3Recipe(name="tiny", denoiser=DenoiserRecipe(network=UNET, loop=loop, **denoiser), identity_term=term, autoencoder="pixel8", attribute_width=8)


def unit_rows(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def toy() -> ToyEmbedder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return ToyEmbedder(8)


def data(count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    attribute = rng.normal(scale=20, size=(count, 4)).astype(np.float32)
    attribute[:, 0] = np.nan
    return coarse.repeat(16, 1).repeat(16, 2), unit_rows(count), attribute


# --- the objective -------------------------------------------------------------------------------------------------------------------------


def test_weight_of_the_identity_term_has_the_papers_values():
    assert identity_weight(torch.tensor([0, 500, 1000])).tolist() == pytest.approx([0.250, 0.189, 0.134], abs=5e-4)


class Fixed(torch.nn.Module):
    """A network that says what it is told, so that every term is known by hand."""

    config = ID3NetworkConfig(unet=UNET, attributes=("yaw_deg", "similarity"))

    def __init__(self, said):
        super().__init__()
        self.said = torch.nn.Parameter(said)

    def condition(self, *args, **kwargs):
        return None

    def forward(self, *args):
        return self.said


def by_hand(kind: str, form: str, toy, t=(0, 300, 999, 100), empty=(False, False, False, True), share=1.0, reconstruction="simple"):
    """Return (the objective's losses, clean, estimate, y, attributes) for a fixed output."""
    torch.manual_seed(0)
    clean, noise, said = (torch.randn(4, 192, 14, 14) for _ in range(3))
    attribute, y = torch.tensor([[0.0, 0.5]]).repeat(4, 1), torch.from_numpy(unit_rows(4))
    config = recipe().denoiser.model_copy(update={"network": UNET.model_copy(update={"prediction": kind})})
    objective = ID3Objective(Fixed(said), config, IdentityTerm(form=form, share=share, multiplier=0.7, reconstruction=reconstruction), toy, PixelAutoencoder(8))
    t_B = torch.tensor(t)
    losses = objective(clean, noise, t_B, y, torch.tensor(empty), attribute, torch.zeros(4, dtype=torch.bool))
    a = alpha_bars()[t_B].float().view(-1, 1, 1, 1)
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    estimate = (noisy - (1 - a).sqrt() * said) / a.sqrt() if kind == "epsilon" else a.sqrt() * noisy - (1 - a).sqrt() * said
    wanted = noise if kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
    image = lambda z: F.pixel_shuffle(0.5 * z, 8)
    return losses, (said - wanted).square().mean((1, 2, 3)), (y * toy(image(estimate))).sum(1), (toy(image(clean)) * toy(image(estimate))).sum(1), objective


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_every_form_of_the_term_by_hand(kind, toy):
    # Row 2 has ᾱ < 1e-3, row 3 no identity: the term is the mean over rows 0 and 1, scaled to the half of the batch that may carry it.
    late = torch.tensor([0.0, 0.3])
    expected = {
        "id3": lambda y, own: -(torch.tensor([0.25, 0.5 * (1 - 1 / (1 + np.exp(-0.3)))]) * y).mean(),
        "dcface": lambda y, own: -(late * y + (1 - late) * own).mean(),
        "cemiface": lambda y, own: ((1 - late) * (1 - y) ** 2 + late * (0.5 - y) ** 2).mean(),
    }
    for form, term in expected.items():
        losses, error, to_y, to_own, _ = by_hand(kind, form, toy)
        identity = 0.7 * 0.5 * term(to_y[:2], to_own[:2])
        assert losses["identity"].item() == pytest.approx(identity.item(), abs=1e-5)
        assert losses["loss"].item() == pytest.approx((error.mean() + identity).item(), abs=1e-5)
        assert losses["cosine"].item() == pytest.approx(to_y[:2].mean().item(), abs=1e-5)
    losses, error, *_ = by_hand(kind, "none", toy)
    assert losses["loss"].item() == pytest.approx(error.mean().item(), abs=1e-5) and losses["identity"] == 0


def test_noise_guard_and_share_choose_the_rows(toy):
    losses, error, to_y, _, objective = by_hand("v", "id3", toy, t=(990, 900, 850, 999))
    assert losses["identity"] == 0 and losses["loss"].item() == pytest.approx(error.mean().item(), abs=1e-5)
    losses, _, to_y, _, objective = by_hand("v", "id3", toy, empty=(True, False, False, False), share=0.25)
    assert losses["cosine"].item() == pytest.approx(to_y[1].item(), abs=1e-5)  # one row of four, the first that may
    assert alpha_bars()[819] > 1e-3 > alpha_bars()[830]


def test_one_step_reconstruction_is_the_first_time_of_the_same_error(toy):
    for name, factor in {"simple": 1.0, "none": 0.0, "likelihood": 0.5 / float(alpha_bars()[0])}.items():
        losses, error, *_ = by_hand("epsilon", "none", toy, reconstruction=name)
        error[0] *= factor
        assert losses["denoising"].item() == pytest.approx(error.mean().item(), rel=1e-5)
    # 1 / (2 ᾱ_1) is what -log N(x_0; μ_θ(x_1), β_1 I) leaves of the noise's error: ‖x_0 - x̂_0‖² / (2 β_1).
    a = alpha_bars()[0]
    clean, noise, said = (torch.randn(5, dtype=torch.float64) for _ in range(3))
    back = ((a.sqrt() * clean + (1 - a).sqrt() * noise) - (1 - a).sqrt() * said) / a.sqrt()
    assert ((clean - back).square().sum() / (2 * (1 - a))).item() == pytest.approx((0.5 / a * (noise - said).square().sum()).item())


def test_gradients_reach_the_denoiser_and_nothing_else():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = UIFaceConfig.tiny()
        guide = torch.nn.Conv2d(3, 8, 16, stride=16)
    config = recipe().denoiser.model_copy(update={"network": plain.network.config})
    network = ID3Network(ID3NetworkConfig(unet=plain.network.config, attributes=NAMES, attribute_width=8))
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.1)

    class Guide:
        name, dim, differentiable = "conv", 8, True

        def __call__(self, image):
            return F.normalize(guide(image).mean((2, 3)))

    guide.requires_grad_(False)
    objective = ID3Objective(network, config, IdentityTerm(share=1.0, multiplier=50.0), Guide(), plain.autoencoder)
    clean, y = torch.randn(3, 4, 8, 8), torch.from_numpy(unit_rows(3))
    losses = objective(clean, torch.randn_like(clean), torch.tensor([10, 50, 90]), y, torch.zeros(3, dtype=torch.bool), torch.full((3, 4), 5.0), torch.tensor([True, False, False]))
    losses["identity"].backward()
    assert network.unet.conv_out.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in [*plain.autoencoder.parameters(), *guide.parameters()])
    assert not any("decoder" in name or "guide" in name for name in objective.state_dict())
    assert {id(p) for p in objective.parameters()} == {id(p) for p in network.parameters()}


# --- the adjusted field --------------------------------------------------------------------------------------------------------------------


def linear_toy():
    """ε = M x + b and f(x̂) = normalise(W x̂): the gradient of <y, f> has a closed form."""
    rng = torch.Generator().manual_seed(1)
    m, b, w = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((12, 12), (12,), (5, 12)))
    y = F.normalize(torch.randn(2, 5, generator=rng, dtype=torch.float64))
    x = torch.randn(2, 3, 2, 2, generator=rng, dtype=torch.float64)
    denoise = lambda z: (z.flatten(1) @ m.T + b).view_as(z)
    embed = lambda z: F.normalize(z.flatten(1) @ w.T)
    return m, w, y, x, denoise, embed


@pytest.mark.parametrize("alpha", [0.9, 0.1])
def test_gradient_of_a_linear_toy_is_the_closed_form(alpha):
    m, w, y, x, denoise, embed = linear_toy()
    noise, full = identity_gradient(denoise, embed, x, y, alpha, "full")
    clean = ((x - (1 - alpha) ** 0.5 * noise) / alpha**0.5).flatten(1)
    raw = clean @ w.T
    length = raw.norm(dim=1, keepdim=True)
    by_raw = (y - (y * raw).sum(1, keepdim=True) * raw / length**2) / length  # of <y, raw/|raw|>
    by_clean = by_raw @ w
    jacobian = (torch.eye(12, dtype=torch.float64) - (1 - alpha) ** 0.5 * m) / alpha**0.5
    assert torch.allclose(full.flatten(1), by_clean @ jacobian, atol=1e-10)
    same, cheap = identity_gradient(denoise, embed, x, y, alpha, "cheap")
    assert torch.allclose(cheap.flatten(1), by_clean / alpha**0.5, atol=1e-10) and torch.equal(same, noise)
    plain, none = identity_gradient(denoise, embed, x, y, alpha, "none")
    assert torch.equal(plain, noise) and not none.any() and not (full.requires_grad or noise.requires_grad)


def test_full_gradient_agrees_with_finite_differences_through_a_network_and_a_decoder():
    generator = ID3Config.tiny()
    network, autoencoder = generator.network.double(), generator.autoencoder.double()
    y, x = torch.from_numpy(unit_rows(1)).double(), torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    context = network.condition(y, torch.tensor([[10.0, -5.0]], dtype=torch.float64))
    denoise = lambda z: network(z, torch.tensor([400]), context)
    embed = lambda z: generator.guide(autoencoder.decode(z))
    objective = lambda z: (y * embed((z - 0.8**0.5 * denoise(z)) / 0.2**0.5)).sum().item()
    _, gradient = identity_gradient(denoise, embed, x, y, 0.2, "full")
    for seed in range(3):
        way = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        slope = (objective(x + 1e-6 * way) - objective(x - 1e-6 * way)) / 2e-6
        # time embedding is float32 in the network, hence not 1e-8
        assert slope == pytest.approx((gradient * way).sum().item(), rel=1e-4, abs=1e-7)


def test_adjusted_noise_by_hand():
    noise, gradient = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)
    assert adjusted(noise, gradient, Point(500, 0.36, 0.5), 3.0).item() == pytest.approx(1 - 3 * 0.8 * 0.18877 * 2, abs=1e-4)


def test_guidance_by_the_gradient_brings_the_face_nearer_to_its_anchor():
    anchor = unit_rows(4)
    near = {}
    for form in ("none", "cheap", "full"):
        generator = ID3Config.tiny(sampler=ID3Sampler(steps=10, gradient=form, eta=200.0))
        batch = generator.generate(anchor, [1, 2, 3, 4])
        near[form] = (generator.guide(batch.image_BCHW) * torch.from_numpy(anchor)).sum(1).mean().item()
    assert near["full"] > near["none"] + 0.02 and near["cheap"] > near["none"] + 0.02


@pytest.mark.parametrize("settings", [{"guidance": 1.5, "rescale": 0.5, "negative": 0.3}, {"cone": 0.6}, {"cache": 2}, {"solver": "unipc"}, {"ancestral": True}, {"gradient": "cheap"}])
def test_every_switch_keeps_the_contract(settings):
    generator, anchor = ID3Config.tiny(sampler=ID3Sampler(steps=6, **settings)), unit_rows(3)
    base = ID3Config.tiny(sampler=ID3Sampler(steps=6)).generate(anchor, [5, 6, 7]).image_BCHW
    with torch.inference_mode():
        whole = generator.generate(anchor, [5, 6, 7]).image_BCHW
    alone = generator.generate(anchor[1:2], [6]).image_BCHW
    assert torch.allclose(whole[1:2], alone, atol=1e-4) and (whole - base).abs().max() > 1e-4


def test_books_count_a_backward_pass_as_two():
    steps = len([t for t in (800, 600, 400, 200)])  # DDIM of 5 leaves out t = 0; at 800, ᾱ = 1.5e-3, the gradient may be used
    assert ID3Config.tiny(sampler=ID3Sampler(steps=5)).generate(unit_rows(1), [1]).passes_B == (3 * steps,)
    assert ID3Config.tiny(sampler=ID3Sampler(steps=5, gradient="cheap", guidance=1.0)).generate(unit_rows(1), [1]).passes_B == (2 * steps,)
    assert ID3Config.tiny(sampler=ID3Sampler(steps=10)).generate(unit_rows(1), [1]).passes_B == (1 + 3 * 8,)  # t = 900 goes without


def test_ancestral_steps_keep_the_variance_and_end_on_the_estimate():
    seeds = list(range(64))
    solver = Ancestral(1000, seeds)
    assert [point.t for point in solver.points[:2]] == [999, 998] and solver.points[-1].t == 0 and solver.points[-1].alpha_next == 1.0
    # The network of standard normal data says ε = √(1-ᾱ) x; then every step must leave a standard normal latent.
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for index in range(0, 1000, 100):
        assert solver.step(index, x, (1 - solver.points[index].alpha) ** 0.5 * x).std().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(solver.step(5, x, x)[3:4], Ancestral(1000, seeds[3:4]).step(5, x[3:4], x[3:4]))
    point = solver.points[-1]
    assert torch.allclose(solver.step(999, x, 0.5 * x), (x - (1 - point.alpha) ** 0.5 * 0.5 * x) / point.alpha**0.5)


# --- conditions ----------------------------------------------------------------------------------------------------------------------------


def test_a_plain_denoiser_gains_attributes_without_changing_what_it_computes(tmp_path):
    plain = UIFaceConfig.tiny().network
    path = tmp_path / "plain.safetensors"
    save_weights(path, plain, kind="denoiser", config=plain.config.model_dump(mode="json"))
    unet = plain.config
    warm = Id3Recipe(name="w", denoiser=DenoiserRecipe(network=unet, loop=LoopConfig(steps=1, batch=2)))
    network = ID3Network(warm.network()).eval()
    warm_start(network, path)
    z, t, y = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.from_numpy(unit_rows(2))
    attribute = torch.tensor([[30.0, 20.0, -10.0, float("nan")]] * 2)
    context = network.condition(y, attribute, no_attributes_B=torch.tensor([True, False]))
    assert torch.allclose(network(z, t, context), plain(z, t, plain.embed_context(y)), atol=1e-6)
    assert torch.allclose(network.without_identity(attribute), plain.empty_rows(2))
    save_weights(tmp_path / "id3.safetensors", network, kind="id3-denoiser", config=network.config.model_dump(mode="json"))
    warm_start(ID3Network(network.config), tmp_path / "id3.safetensors")
    with pytest.raises(UserError, match="expected 'id3-denoiser'"):
        save_weights(tmp_path / "other.safetensors", plain, kind="recogniser", config={})
        warm_start(network, tmp_path / "other.safetensors")


def test_the_published_projection_is_a_perceptron_of_512_256_768():
    unet = UNetConfig(identity_dim=512, context_dim=768, width=32, multipliers=(1, 2), attention=(False, True), blocks=1)
    layers = ID3Network(ID3NetworkConfig(unet=unet, projection=(512, 256))).unet.context
    assert [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, torch.nn.Linear)] == [(512, 512), (512, 256), (256, 768)]
    assert isinstance(layers[-1], torch.nn.Linear) and isinstance(layers[1], torch.nn.ReLU)


def test_unknown_attributes_are_told_from_zero_and_dropped_rows_use_their_own_vector():
    embedding = AttributeEmbedding(("age_years", "yaw_deg"), 16, 4)
    torch.manual_seed(0)
    torch.nn.init.normal_(embedding.layers[2].weight)
    nan = float("nan")
    zero, unknown, other = embedding(torch.tensor([[0.0, 0.0], [nan, 0.0], [nan, 45.0]]))
    assert (zero - unknown).abs().max() > 1e-3 and (unknown - other).abs().max() > 1e-3
    torch.nn.init.normal_(embedding.empty)
    assert torch.equal(embedding(torch.tensor([[1.0, 2.0]]), torch.tensor([True]))[0], embedding.empty)
    assert embedding.layers[0](torch.tensor([[0.5, 0.5, 0.0, 0.0]])).allclose(embedding.layers[0](torch.tensor([[50 / 100, 45 / 90, 0.0, 0.0]])))


def test_the_law_has_the_moments_of_the_data_and_of_its_mirror_image():
    rng = np.random.default_rng(0)
    yaw = rng.normal(5, 15, 4000)
    rows = np.stack([np.full(4000, np.nan), yaw, rng.normal(-3, 10, 4000), 0.2 * yaw + rng.normal(0, 1, 4000)], 1).astype(np.float32)
    law = AttributeLaw.from_document(json.loads(json.dumps(fit_law(rows, NAMES).document())))
    drawn = law.draw(range(3000), NAMES)
    assert np.isnan(drawn[:, 0]).all() and law.names == NAMES[1:]
    assert drawn[:, 1:].mean(0) == pytest.approx([0, -3, 0], abs=0.9)
    assert drawn[:, 1:].std(0) == pytest.approx([15.8, 10, 3.3], rel=0.08)
    assert np.corrcoef(drawn[:, 1], drawn[:, 3])[0, 1] > 0.85
    assert np.array_equal(law.draw([7], NAMES)[0, 1:], drawn[7, 1:])
    assert fit_law(np.full((20, 4), np.nan, np.float32), NAMES) is None
    assert mirrored(np.array([[30.0, 10.0, 5.0, 2.0]]), NAMES).tolist() == [[30.0, -10.0, 5.0, -2.0]]


def test_mirrored_faces_carry_mirrored_attributes():
    _, embed, attribute = data()
    latents = np.arange(24, dtype=np.float16)[:, None, None, None] * np.ones((1, 192, 2, 2), np.float16)
    batches = Id3Batches(latents, embed, attribute, recipe())
    bare_share = []
    for step in range(40):
        clean, _, t, identity, empty, found, bare = batches(step, 0, 1)
        rows = clean[:, 0, 0, 0].long().numpy()
        sign = np.where(rows[:, None] >= 12, [1, -1, 1, -1], 1)
        assert np.array_equal(found.numpy(), attribute[rows % 12] * sign, equal_nan=True)
        assert torch.equal(identity, torch.from_numpy(embed[rows % 12])) and bool(empty[0])
        bare_share.append(bare.float().mean().item())
    assert np.mean(bare_share) == pytest.approx(0.1, abs=0.05)


def test_target_similarity_is_drawn_where_the_network_is_told_it():
    wanted = Id3Recipe.parse({**recipe().model_dump(), "attributes": ["yaw_deg", "similarity"], "identity_term": {"form": "cemiface"}})
    _, embed, attribute = data()
    rows = np.stack([attribute[:, 1], np.full(12, np.nan)], 1).astype(np.float32)
    found = torch.cat([Id3Batches(np.zeros((24, 192, 2, 2), np.float16), embed, rows, wanted)(step, 0, 1)[5] for step in range(20)])[:, 1]
    assert found.min() < -0.8 and found.max() > 0.8 and torch.allclose(found * 50, (found * 50).round(), atol=1e-4)
    with pytest.raises(UserError, match="needs 'similarity'"):
        Id3Recipe.parse({**recipe().model_dump(), "identity_term": {"form": "cemiface"}})


def test_pixel_latents_lose_nothing():
    image = torch.rand(2, 3, 112, 112) * 2 - 1
    for name, shape in {"pixel": (3, 112, 112), "pixel4": (48, 28, 28)}.items():
        pixels = open_autoencoder(name)
        assert pixels.latent_shape == shape == tuple(pixels.encode(image).shape[1:])
        assert torch.allclose(pixels.decode(pixels.encode(image)), image, atol=1e-6)
    with pytest.raises(UserError, match="divides 112"):
        open_autoencoder("pixel5")


# --- training ------------------------------------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_keeps_the_law_and_resumes_exactly(tmp_path, toy):
    path = train_id3(recipe(30), *data(), toy, tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"] and {"denoising", "identity", "cosine"} <= set(lines[0])
    network, facts = load_id3(path)
    assert facts["attribute_law"]["names"] == list(NAMES[1:]) and network.config.attributes == NAMES
    assert network.attributes.layers[2].weight.abs().sum() > 0

    first = recipe(4)
    whole = train_id3(first, *data(), toy, tmp_path / "a")
    class Stop(Exception):
        pass

    save, calls = training.Keeper.save, []
    def stopping(keeper, step):
        save(keeper, step)
        calls.append(step)
        if len(calls) == 1:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Keeper, "save", stopping)
        with pytest.raises(Stop):
            train_id3(first, *data(), toy, tmp_path / "b")
    assert calls == [2]
    assert train_id3(first, *data(), toy, tmp_path / "b").read_bytes() == whole.read_bytes()
    assert load_weights(whole, kind="id3-denoiser")[2]["steps"] == 4


def test_the_term_raises_the_cosine_it_is_for(toy):
    reached = {}
    for multiplier in (1e-9, 5.0):
        torch.manual_seed(0)
        network = ID3Network(ID3NetworkConfig(unet=UNET, attributes=NAMES, attribute_width=8))
        objective = ID3Objective(network, recipe().denoiser, IdentityTerm(share=1.0, multiplier=multiplier), toy, PixelAutoencoder(8))
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
        clean, noise, y, flags = torch.randn(4, 192, 14, 14), torch.randn(4, 192, 14, 14), torch.from_numpy(unit_rows(4)), torch.zeros(4, dtype=torch.bool)
        for _ in range(12):
            losses = objective(clean, noise, torch.full((4,), 500), y, flags, torch.zeros(4, 4), flags)
            optimiser.zero_grad()
            losses["loss"].backward()
            optimiser.step()
        reached[multiplier] = losses["cosine"].item()
    assert reached[5.0] > reached[1e-9] + 0.1


def test_a_guide_without_gradient_or_of_another_space_is_refused(tmp_path, toy):
    class Blind(ToyEmbedder):
        differentiable = False

    with pytest.raises(UserError, match="gives no gradient"):
        train_id3(recipe(), *data(), Blind(8), tmp_path)
    with pytest.raises(UserError, match="gives 5 numbers a face, the generator's identity has 8"):
        train_id3(recipe(), *data(), ToyEmbedder(5), tmp_path)
    with pytest.raises(UserError, match="channels"):
        train_id3(recipe().model_copy(update={"autoencoder": "pixel2"}), *data(), toy, tmp_path)


def test_trained_weights_build_a_generator_that_is_handed_its_embedders(tmp_path, toy):
    path = train_id3(recipe(2), *data(), toy, tmp_path)
    config = ID3Config(denoiser=str(path), autoencoder="pixel8", sampler=ID3Sampler(steps=3), attributes={"yaw_deg": 30.0}, redraw=Redraw(keep_cosine=0.5, embedder="judge"))
    asked = []
    generator = config.build(torch.device("cpu"), lambda name: (asked.append(name), toy)[1])
    assert sorted(asked) == ["judge", "mobilefacenet-small"]
    drawn = generator.attributes([1, 2])
    assert drawn[:, 1].tolist() == [30.0, 30.0] and np.isnan(drawn[:, 0]).all() and drawn[0, 2] != drawn[1, 2]
    assert generator.generate(unit_rows(1), [3]).image_BCHW.shape == (1, 3, 112, 112)
    with pytest.raises(UserError, match="load_embedder"):
        config.build(torch.device("cpu"))
    plain = config.model_copy(update={"sampler": ID3Sampler(steps=3, gradient="none"), "redraw": Redraw()})
    assert plain.build(torch.device("cpu")).guide is None
    with pytest.raises(UserError, match="did you mean 'yaw_deg'"):
        ID3Config.parse({"attributes": {"yaw": 3.0}})


# --- redraws -------------------------------------------------------------------------------------------------------------------------------


class Counted:
    """Draws an image of one grey level that depends on the seed alone; the judge reads the level as the cosine to (1, 0)."""

    name, dim, differentiable = "grey", 2, False

    def __init__(self):
        self.drawn = []

    def draw(self, anchor_BD, seeds):
        self.drawn += list(seeds)
        level = torch.tensor([np.random.default_rng(seed).uniform(-1, 1) for seed in seeds], dtype=torch.float32)
        return FaceBatch(image_BCHW=level.view(-1, 1, 1, 1).expand(-1, 3, 112, 112), seeds=tuple(seeds), passes_B=(2,) * len(seeds))

    def __call__(self, image_BCHW):
        level = image_BCHW[:, 0, 0, 0]
        return torch.stack([level, (1 - level**2).sqrt()], 1)


def test_redraws_stop_at_the_first_accepted_image_and_keep_the_best_otherwise():
    counted, seeds = Counted(), list(range(40))
    anchor = np.tile(np.array([[1.0, 0.0]], np.float32), (40, 1))
    level = lambda seed: np.float32(np.random.default_rng(seed).uniform(-1, 1))
    batch = with_redraws(counted.draw, anchor, seeds, counted, Redraw(keep_cosine=0.5, most=3))
    for row, seed in enumerate(seeds):
        tries = [level(seed), *(level(derive_seed(seed, "redraw", k)) for k in (1, 2, 3))]
        taken = next((k for k, value in enumerate(tries) if value >= 0.5), 3)
        kept = tries[taken] if tries[taken] >= 0.5 else max(tries)
        assert batch.redraws_B[row] == taken and batch.passes_B[row] == 2 * (1 + taken)
        assert batch.image_BCHW[row, 0, 0, 0].item() == pytest.approx(kept)
    assert batch.seeds == tuple(seeds) and len(counted.drawn) == sum(batch.redraws_B) + 40
    alone = with_redraws(counted.draw, anchor[7:8], [7], counted, Redraw(keep_cosine=0.5, most=3))
    assert torch.equal(alone.image_BCHW, batch.image_BCHW[7:8])
    assert with_redraws(counted.draw, anchor, seeds, counted, Redraw()).redraws_B == ()


def test_redrawn_faces_are_nearer_to_their_anchors_and_do_not_depend_on_the_batch():
    anchor = unit_rows(4)
    sampler = ID3Sampler(steps=3, gradient="none", cone=0.3)
    plain = ID3Config.tiny(sampler=sampler)
    strict = ID3Config.tiny(sampler=sampler, redraw=Redraw(keep_cosine=0.9, most=2))
    near = lambda image: (plain.guide(image) * torch.from_numpy(anchor)).sum(1)
    first, again = plain.generate(anchor, [1, 2, 3, 4]), strict.generate(anchor, [1, 2, 3, 4])
    assert (near(again.image_BCHW) >= near(first.image_BCHW) - 1e-5).all() and near(again.image_BCHW).mean() > near(first.image_BCHW).mean()
    assert torch.allclose(strict.generate(anchor[2:3], [3]).image_BCHW, again.image_BCHW[2:3], atol=1e-4)
    assert sum(again.redraws_B) > 0
