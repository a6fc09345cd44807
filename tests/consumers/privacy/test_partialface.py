"""PartialFace: the published constants, the sampling rule, the rank that arithmetic finds."""

from __future__ import annotations

import pytest
import torch
from facefoundry.consumers.privacy.draws import TorchDraws
from facefoundry.consumers.privacy.front_end import axis_matrices, forward_dct
from facefoundry.consumers.privacy.partialface import KEPT, ORDERS, PRUNED, SUBSETS, PartialFace, PartialFaceClient, PartialFaceRecipe, PartialFaceSettings, ReleasedObjective, orders, subsets
from facefoundry.core.errors import UserError
from facefoundry.recognition.backbones import BackboneConfig


def test_constants():
    assert sorted(sum(SUBSETS, ())) == sorted(KEPT) and len(KEPT) == 54 and all(len(one) == 9 for one in SUBSETS)
    assert set(PRUNED) == {8 * u + v for u in range(8) for v in range(8) if u + v <= 3}
    assert SUBSETS[0][:3] == (5, 34, 38) and SUBSETS[5][2] == 56 and SUBSETS[5][8] == 7
    assert PartialFaceSettings().model_dump(include={"subsets", "orders", "samples"}) == {"subsets": 6, "orders": 6, "samples": 18}


@pytest.mark.parametrize(("m", "n"), [(6, 3), (6, 6), (3, 6), (9, 12), (54, 1)])
def test_other_numbers_of_ranks(m, n):
    settings = PartialFaceSettings(subsets=m, orders=n)
    parts, perms = subsets(settings), orders(settings)
    assert sorted(k for part in parts for k in part) == sorted(KEPT) and len({len(part) for part in parts}) == 1
    assert len({tuple(p) for p in perms}) == n and all(sorted(p) == list(range(54 // m)) for p in perms)
    if m == 6:
        assert tuple(perms[:3]) == ORDERS


def test_refusals():
    for settings, message in ((PartialFaceSettings(subsets=5), "divisor"), (PartialFaceSettings(subsets=54, orders=2), "fewer than 2"), (PartialFaceSettings(release_compatible=True), "orders")):
        with pytest.raises(UserError, match=message):
            PartialFaceClient(settings)


def test_channels_sent_are_those_of_the_rank_on_each_plane():
    client = PartialFaceClient(PartialFaceSettings(side=16))
    image = torch.rand(2, 3, 112, 112) * 2 - 1
    subset, order = torch.tensor([2, 5]), torch.tensor([1, 2])
    code = client.codes(subset, order)
    assert code[0].tolist() == [SUBSETS[2][k] for k in ORDERS[1]]
    everything = forward_dct(client.seen(image)).unflatten(1, (3, 64))

    class Fixed(TorchDraws):
        def below(self, count, bound):
            return order

    sent = client.send(image, subset, Fixed())["coefficients"].unflatten(1, (3, 9))
    for plane in range(3):
        assert torch.equal(sent[1, plane], everything[1, plane, code[1]])


def test_every_rank_is_drawn():
    client = PartialFaceClient(PartialFaceSettings(side=16))
    method = PartialFace(client.settings, BackboneConfig(embed_dim=8, width=0.125)).eval()
    image = (torch.rand(1, 3, 112, 112) * 2 - 1).expand(300, -1, -1, -1)
    sent = method.protect(image).tensors["coefficients"]
    assert len(set(method.channel_codes())) == 36
    assert 30 <= len({one.numpy().tobytes() for one in sent}) <= 36


def test_the_rank_is_no_secret():
    """Least squares under each candidate: the true rank explains the query, the others do not."""
    side, client = 16, PartialFaceClient(PartialFaceSettings(side=16, orders=3))
    method = PartialFace(client.settings, BackboneConfig(embed_dim=8, width=0.125))
    image = torch.rand(1, 3, 112, 112) * 2 - 1
    code = torch.tensor(method.channel_codes()[7])[None]
    seen = forward_dct(client.seen(image).double(), code)[0, :9].flatten()
    r = torch.from_numpy(axis_matrices(side).copy())
    left = []
    for candidate in method.channel_codes():
        system = torch.cat([torch.kron(r[k // 8].contiguous(), r[k % 8].contiguous()) for k in candidate])
        found = torch.linalg.lstsq(system, seen[:, None], driver="gelsd").solution
        left.append(float((system @ found - seen[:, None]).norm() / seen.norm()))
    assert left[7] < 1e-9 and min(left[:7] + left[8:]) > 0.2


def test_released_sampling_keys_the_subsets_on_the_label():
    settings = PartialFaceSettings(side=16, subsets=6, orders=3, samples=3, release_compatible=True)
    recipe = PartialFaceRecipe(method=settings, backbone=BackboneConfig(embed_dim=8, width=0.125))
    objective = ReleasedObjective(recipe, 40, PartialFace(settings, recipe.backbone)).eval()
    seen = {}

    def note(image, subset, draws):
        for label, one in zip(labels.tolist(), subset.tolist()):
            seen.setdefault(label, set()).add(one)
        return {"coefficients": torch.zeros(len(image), 27, 16, 16)}

    objective.network.client.send = note
    labels = torch.tensor([0, 19, 20, 1] * 40)
    objective.embed(torch.zeros(160, 3, 112, 112), labels)
    assert seen[0] == seen[20] == {0, 1, 2} and seen[19] == {3, 4, 5} and seen[1] == {0, 1, 3}


def test_the_server_sees_every_rank_at_one_size():
    """Channels of different ranks differ in size by a factor of 1000; over a batch the small ones would vanish."""
    method = PartialFace(PartialFaceSettings(side=28, standardise=True), BackboneConfig(embed_dim=16, width=0.125)).train()
    image = torch.rand(12, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sent = method.protect(image, draws=TorchDraws(torch.Generator().manual_seed(0))).tensors["coefficients"]
    assert sent.std((2, 3)).max() > 50 * sent.std((2, 3)).min()
    spread = method.server.prepare(sent).std((2, 3), correction=0)
    assert torch.allclose(spread[sent.std((2, 3)) > 0.1], torch.ones(()), atol=0.01)
    alone = torch.cat([method.server.prepare(one[None]) for one in sent])
    assert torch.allclose(alone, method.server.prepare(sent), atol=1e-4)  # a face's rank says nothing to the others
