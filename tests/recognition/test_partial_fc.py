"""Spread and sampled class centres against the plain ones: two processes are one, rate 1 is exact, only what was drawn moves (§11.4's invariants)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from facefoundry.core.errors import UserError
from facefoundry.core.training_state import Keeper
from facefoundry.identity.sources import Faces
from facefoundry.recognition.gather import sum_over_processes
from facefoundry.recognition.heads import HEADS, ClassCentres, margin_loss
from facefoundry.recognition.partial_fc import PartialCentres, PartialFcConfig, draw, partial_loss, shard
from facefoundry.recognition.train import RecogniserRecipe, train_recogniser
from gloo_pair import run_pair
from torch import nn

CLASSES, DIM = 9, 5
SPREAD = ("softmax", "cosface", "arcface", "arcface-straight-through", "adaface", "curricularface")


class Case(nn.Module):
    """A linear network under a head; forward(row_BX, label_B) → loss."""

    def __init__(self, head: str, optimiser: str, rate: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(6, DIM)
        self.centres = PartialCentres(CLASSES, DIM, PartialFcConfig(rate=rate), optimiser=optimiser, weight_decay=0.1, seed=3)
        self.head = HEADS[head]()
        self._ddp_params_and_buffers_to_ignore = [f"centres.{name}" for name, _ in self.centres.named_buffers()]

    def forward(self, row_BX, label_B):
        return partial_loss(self.head, self.centres, self.network(row_BX), label_B)["loss"]


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    # Classes 5 to 8 have no image: a shard without positives.
    return torch.randn(16, 6, generator=generator), torch.arange(16) % 5


def results(rank: int, world: int) -> dict:
    """Loss, gradient and all centres after three steps of every head and both optimisers; on rank 0 the whole state."""
    row, label = rows()
    mine = slice(rank * 16 // world, (rank + 1) * 16 // world)
    found = {}
    for head in SPREAD:
        for optimiser in ("sgd", "adamw"):
            case = Case(head, optimiser, 1.0).train()
            trained = nn.parallel.DistributedDataParallel(case) if world > 1 else case
            for _ in range(3):
                case.zero_grad()
                loss = trained(row[mine], label[mine])
                loss.backward()
                case.centres.step(0.1)
            case.centres.collect()
            state = {name: value.double() for name, value in case.state_dict().items() if rank == 0 or not name.startswith("centres")}
            found[f"{head} {optimiser}"] = {"loss": sum_over_processes(loss) / world, "gradient": case.network.weight.grad, **state}
    return found


def refusals() -> list[str]:
    words = []
    for build in (lambda: Case("cifp", "sgd", 1.0)(*rows()), lambda: PartialCentres(9, 4, PartialFcConfig(shards=3)), lambda: PartialCentres(1, 4, PartialFcConfig())):
        try:
            build()
        except UserError as error:
            words.append(str(error))
    return words


def of_process(rank: int, world: int) -> dict:
    return {"results": results(rank, world), "refusals": refusals()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> list[dict]:
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("torch without gloo")
    return run_pair(__file__, tmp_path_factory.mktemp("gloo"))


@pytest.mark.parametrize("head", SPREAD)
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_two_processes_are_one(head, optimiser, shared):
    alone = results(0, 1)[f"{head} {optimiser}"]
    for rank in range(2):
        for name, value in shared[rank]["results"][f"{head} {optimiser}"].items():
            wanted = alone[name].to(value.dtype)
            largest = float(wanted.abs().max()) if wanted.numel() else 1.0
            assert value.shape == wanted.shape and torch.allclose(value, wanted, atol=2e-5 * max(1.0, largest)), (name, value, wanted)
    assert float(alone["gradient"].abs().max()) > 1e-4


def test_what_cannot_be_spread_is_refused(shared):
    words = shared[0]["refusals"]
    assert len(words) == 3 and "ranks the cosines of all classes" in words[0] and "partial_fc.shards is 3, but 2 processes" in words[1] and "cannot be spread over 2" in words[2]


@pytest.mark.parametrize("head", list(HEADS))
def test_all_classes_in_one_process_are_the_plain_head(head):
    row_BX, label_B = rows()
    case = Case(head, "sgd", 1.0).train()
    plain, twin = ClassCentres(CLASSES, DIM), HEADS[head]().train()
    plain.assign(case.centres.weight)
    raw_BD = case.network(row_BX).detach().requires_grad_()
    ours = partial_loss(case.head, case.centres, raw_BD, label_B)
    (gradient_BD,) = torch.autograd.grad(ours["loss"], raw_BD, retain_graph=True)
    ours["loss"].backward()
    wanted = margin_loss(twin, plain, raw_BD, label_B)
    (wanted_BD,) = torch.autograd.grad(wanted["loss"], raw_BD, retain_graph=True)
    wanted["loss"].backward()
    assert all(torch.allclose(ours[name], wanted[name], atol=1e-5) for name in ("loss", "accuracy", "target_cosine"))
    assert torch.allclose(gradient_BD, wanted_BD, atol=1e-6) and torch.allclose(case.centres._used[1].grad, plain.weight.grad, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(case.head.buffers(), twin.buffers()))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_the_step_is_torchs(optimiser):
    case = Case("arcface", optimiser, 1.0).train()
    plain = nn.Parameter(case.centres.weight.clone())
    theirs = torch.optim.SGD([plain], lr=0.1, momentum=0.9, weight_decay=0.1) if optimiser == "sgd" else torch.optim.AdamW([plain], lr=0.1, weight_decay=0.1)
    for _ in range(4):
        case(*rows()).backward()
        plain.grad = case.centres._used[1].grad.clone()
        theirs.step()
        case.centres.step(0.1)
        assert torch.allclose(case.centres.weight, plain, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_only_what_was_drawn_moves(optimiser):
    torch.manual_seed(1)
    centres = PartialCentres(200, DIM, PartialFcConfig(rate=0.1), optimiser=optimiser, weight_decay=0.1, seed=3).train()
    head, label_B = HEADS["arcface"](), torch.tensor([3, 199, 3, 77])
    ever = torch.zeros(200, dtype=torch.bool)
    for _ in range(3):
        before = {name: value.clone() for name, value in centres.named_buffers() if value.numel()}
        loss = partial_loss(head, centres, torch.randn(4, DIM), label_B)["loss"]
        loss.backward()
        row_K = centres._used[0]
        assert len(row_K) == 20 and set(label_B.tolist()) <= set(row_K.tolist()) and torch.equal(row_K, row_K.unique())
        centres.step(0.1)
        rest = torch.ones(200, dtype=torch.bool)
        rest[row_K] = False
        ever |= ~rest
        assert all(torch.equal(getattr(centres, name)[rest], value[rest]) for name, value in before.items())
        assert (centres.weight[row_K] != before["weight"][row_K]).any(1).all()
    assert 3 < int(ever.sum()) - 3 < 57 and int(centres.count.max()) == 3


def test_fewer_classes_never_cost_more():
    row_BX, label_B = rows()
    case = Case("arcface", "sgd", 1.0).eval()
    whole = case(row_BX, label_B)
    part = Case("arcface", "sgd", 0.7).eval()(row_BX, label_B)
    assert part < whole


def test_drawing():
    label_N = torch.tensor([4, -1, 4, 9])
    assert torch.equal(draw(label_N, 10, 1.0), torch.arange(10))
    assert torch.equal(draw(label_N, 10, 0.1), torch.tensor([4, 9]))  # the batch's classes, though they are more than the share
    torch.manual_seed(0)
    hits = torch.zeros(10)
    for _ in range(600):
        hits[draw(label_N, 10, 0.5)] += 1
    assert hits[4] == hits[9] == 600 and hits[[0, 1, 2, 3, 5, 6, 7, 8]].sub(225).abs().max() < 60  # 3 of 8, uniformly


@pytest.mark.parametrize(("classes", "world", "sizes"), [(10, 3, [4, 3, 3]), (93_431, 8, [11_679] * 7 + [11_678]), (4, 1, [4])])
def test_stretches(classes, world, sizes):
    found = [shard(classes, world, rank) for rank in range(world)]
    assert [held for _, held in found] == sizes and [start for start, _ in found] == [sum(sizes[:rank]) for rank in range(world)]


def test_an_overflowed_gradient_moves_nothing():
    case = Case("arcface", "sgd", 1.0).train()
    before = case.centres.weight.clone()
    (case(*rows()) * float("inf")).backward()
    case.centres.step(0.1, scale=2.0)
    assert torch.equal(case.centres.weight, before)
    (8.0 * case(*rows())).backward()
    case.centres.step(0.1, scale=8.0)
    twin = Case("arcface", "sgd", 1.0).train()
    twin(*rows()).backward()
    twin.centres.step(0.1)
    assert torch.allclose(case.centres.weight, twin.centres.weight, atol=1e-6)


def test_a_training_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    image_NHWC = np.random.default_rng(0).integers(0, 256, (24, 112, 112, 3), np.uint8)
    faces = Faces(image_NHWC=image_NHWC, identity_N=np.repeat(np.arange(12, dtype=np.int32), 2), names=tuple("abcdefghijkl"), paths=tuple(f"{i:02d}" for i in range(24)))
    recipe = RecogniserRecipe.parse(
        {"backbone": {"embed_dim": 8, "width": 0.125, "shrink": 2}, "batch": 6, "steps": 4, "partial_fc": {"rate": 0.6}, "head": {"name": "curricularface"}, "optimiser": "adamw", "lr": 0.01, "checkpoint_every": 2}
    )
    train_recogniser(recipe, faces, tmp_path / "whole")
    half, save, saved = tmp_path / "half", Keeper.save, []

    def stop(self, step):  # killed after the state of step 2
        save(self, step)
        saved.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train_recogniser(recipe, faces, half)
    monkeypatch.setattr(Keeper, "save", save)
    train_recogniser(recipe, faces, half)
    one, two = (torch.load(folder / "state.pt", weights_only=True)["objective"] for folder in (tmp_path / "whole", half))
    assert saved == [2] and all(torch.equal(one[name], two[name]) for name in one)
    assert int(one["centres.count"].sum()) == 4 * 7 and "centres.weight" in one


def test_recipe_mistakes():
    with pytest.raises(UserError, match="accumulate: 1"):
        RecogniserRecipe.parse({"partial_fc": {"rate": 0.1}, "accumulate": 2})
    with pytest.raises(UserError, match="shards is 4, but 1 process trains"):
        PartialCentres(10, 4, PartialFcConfig(shards=4))
