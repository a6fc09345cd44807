"""Recognisers under attack: galleries, directions of the attack, rows that stay beside their references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facefoundry.core.errors import UserError
from facefoundry.core.images import to_float
from facefoundry.identity.sources import Faces
from facefoundry.recognition.afa import DualNetwork
from facefoundry.recognition.embedder import TorchEmbedder, embed_faces
from facefoundry.recognition.robustness import AttackSettings, GalleryLogits, PairLogits, identify_under_attack, make_gallery, score_under_attack, shares_under_attack


class Blocks(nn.Module):
    """Faces pooled to 7x7, a fixed random projection: fast, differentiable."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 49, 16, bias=False)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return self.layer(F.avg_pool2d(image_BCHW, 16).flatten(1))


@pytest.fixture(scope="module", autouse=True)
def library():
    pytest.importorskip("torchattacks")


@pytest.fixture(scope="module")
def embedder() -> TorchEmbedder:
    torch.manual_seed(0)
    return TorchEmbedder(Blocks(), name="blocks", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def faces() -> Faces:
    rng = np.random.default_rng(0)
    person = rng.normal(0, 20, (6, 1, 7, 7, 3)).repeat(4, 1) + rng.normal(0, 14, (6, 4, 7, 7, 3))
    image = np.clip(128 + person, 0, 255).astype(np.uint8).reshape(24, 7, 7, 3).repeat(16, 1).repeat(16, 2)
    return Faces(image_NHWC=image, identity_N=np.arange(6).repeat(4).astype(np.int32), names=tuple("abcdef"), paths=tuple(f"{p}/{k}.png" for p in "abcdef" for k in range(4)))


def test_the_gallery_is_each_first_face_and_no_probe(faces):
    gallery = make_gallery(faces, 100)
    assert gallery.first_I.tolist() == [0, 4, 8, 12, 16, 20] and len(gallery.probe_P) == 18
    assert not set(gallery.first_I) & set(gallery.probe_P)
    assert np.array_equal(faces.identity_N[gallery.first_I[gallery.label_P]], faces.identity_N[gallery.probe_P])
    few = make_gallery(faces, 5, seed=1)
    assert len(few.probe_P) == 5 and not np.array_equal(few.probe_P, make_gallery(faces, 5, seed=2).probe_P)
    with pytest.raises(UserError, match="1 people"):
        make_gallery(Faces(image_NHWC=faces.image_NHWC[:4], identity_N=faces.identity_N[:4], names=("a",), paths=faces.paths[:4]), 5)


def test_clean_identification_is_the_plain_nearest_neighbour_and_attacks_only_lower_it(embedder, faces):
    gallery = make_gallery(faces, 18)
    right_SP = identify_under_attack(embedder, faces, gallery, [0.0, 1.0, 3.0, 10.0], AttackSettings(steps=5, batch=7))
    embed_ND = embed_faces(embedder, faces.image_NHWC)
    plain = np.array([gallery.first_I[np.argmax(embed_ND[gallery.first_I] @ embed_ND[row])] // 4 == row // 4 for row in gallery.probe_P])
    assert np.array_equal(right_SP[0], plain)
    accuracy = right_SP.mean(1)
    assert accuracy[0] > 0.6 > 0.2 >= accuracy[3] and (np.diff(accuracy) <= 0).all()


@pytest.mark.parametrize("name", ["apgd", "square"])
def test_other_attacks_run_on_the_gallery(embedder, faces, name):
    gallery = make_gallery(faces, 8)
    right_SP = identify_under_attack(embedder, faces, gallery, [0.0, 30.0], AttackSettings(name=name, steps=3))
    assert right_SP[1].sum() <= right_SP[0].sum()


def test_mated_scores_fall_and_others_rise_each_beside_its_own_reference(embedder, faces):
    first, second = np.array([0, 4, 8, 0, 4, 8]), np.array([1, 5, 9, 5, 9, 13])
    same = np.array([True] * 3 + [False] * 3)
    embed_ND = embed_faces(embedder, faces.image_NHWC)
    plain = np.einsum("pd,pd->p", embed_ND[first], embed_ND[second])
    threshold = np.full(6, 0.4)
    scores = [score_under_attack(embedder, embed_ND[first], faces.image_NHWC[second], same, threshold, [0.0, 2.0, 6.0], AttackSettings(steps=5, batch=batch)) for batch in (6, 4)]
    for score_SP in scores:
        assert np.allclose(score_SP[0], plain, atol=1e-5)
        assert (np.diff(score_SP[:, same], axis=0) < 0).all() and (np.diff(score_SP[:, ~same], axis=0) > 0).all()
    with pytest.raises(UserError, match="cannot attack pairs"):
        score_under_attack(embedder, embed_ND[first], faces.image_NHWC[second], same, threshold, [1.0], AttackSettings(name="apgd"))


def test_logits_by_hand(embedder, faces):
    image, embed_ND = to_float(faces.image_NHWC[:3]), torch.from_numpy(embed_faces(embedder, faces.image_NHWC[:3]))
    cosine = embed_ND @ embed_ND.T
    assert torch.allclose(GalleryLogits(embedder, embed_ND)(image), 16 * cosine, atol=1e-4)
    pair = PairLogits(embedder, embed_ND.flip(0), torch.tensor([0.1, 0.2, 0.3]))(image)
    above = 16 * (cosine.flip(1).diagonal() - torch.tensor([0.1, 0.2, 0.3]))
    assert torch.allclose(pair, torch.stack((-above, above), 1), atol=1e-4)
    assert torch.equal(pair[:, 1] > 0, cosine.flip(1).diagonal() > torch.tensor([0.1, 0.2, 0.3]))


def test_a_dual_network_stays_in_evaluation_mode_under_the_librarys_hands(faces):
    embedder = TorchEmbedder(DualNetwork.tiny(), name="afa", device=torch.device("cpu"))
    before = {key: value.clone() for key, value in embedder.network.state_dict().items()}
    identify_under_attack(embedder, faces, make_gallery(faces, 2), [4.0], AttackSettings(steps=1))
    assert not embedder.network.training and all(torch.equal(before[key], value) for key, value in embedder.network.state_dict().items())
    assert 0 < shares_under_attack(embedder, faces.image_NHWC[:3]) < 1


def test_what_passes_no_gradient_is_refused_and_others_have_no_share(embedder, faces):
    class Stiff:
        name, dim, differentiable = "stiff", 16, False

        def __call__(self, image_BCHW):
            return embedder(image_BCHW)

    with pytest.raises(UserError, match="'stiff' passes no gradients"):
        identify_under_attack(Stiff(), faces, make_gallery(faces, 2), [1.0])
    assert shares_under_attack(embedder, faces.image_NHWC) is None
