"""EKD: worked examples E4.1-E4.3, thresholds that start right, and the faults of the public code (defect 12)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from facefoundry.recognition.ekd import Ekd, EkdConfig, batch_thresholds, rank_loss

THRESHOLD = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], dtype=torch.float64)


def loss(student: float, teacher: float, shift: float = 0.0) -> tuple[float, float]:
    s = torch.tensor([student], dtype=torch.float64, requires_grad=True)
    found = rank_loss(s, torch.tensor([teacher], dtype=torch.float64), THRESHOLD + shift, THRESHOLD)
    found.backward()
    return found.item(), s.grad.item()


@pytest.mark.parametrize(
    ("student", "teacher", "wanted"),
    [(0.35, 0.45, 1.0), (0.35, 0.36, 2.40696e-4), (0.31, 0.39, 0.28909), (0.399, 0.401, 0.0024977), (0.35, 0.75, 9.0), (0.399, 0.479, 0.40160)],
)
def test_e41_values(student, teacher, wanted):
    assert loss(student, teacher)[0] == pytest.approx(wanted, rel=2e-4 if wanted < 0.3 else 1e-4)


@pytest.mark.parametrize(("student", "teacher", "slope"), [(0.35, 0.45, -2.6593), (0.395, 0.45, -29.271), (0.41, 0.35, 28.7717)])
def test_e41_slopes(student, teacher, slope):
    assert loss(student, teacher)[1] == pytest.approx(slope, abs=5e-4)


def test_e42_each_network_has_its_own_thresholds():
    assert loss(0.40, 0.45, shift=0.05)[0] == pytest.approx(1.0, abs=1e-6)
    assert loss(0.40, 0.45)[0] < 0.5


def embedded(count: int = 24, seed: int = 0, dim: int = 8) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_e43_equal_embeddings_cost_nothing_and_far_pairs_have_no_gradient():
    label, rows = torch.arange(24) // 3, embedded()
    found = Ekd(EkdConfig())(rows, rows, label)
    assert float(found["positive"]) == 0 and float(found["negative"]) == 0
    value, slope = loss(0.85, 0.75)
    assert value < 1e-8 and abs(slope) < 1e-6


@pytest.mark.parametrize(("pairs", "places"), [(2016, [201, 20, 2, 0, 0, 0]), (130816, [13081, 1308, 130, 13, 1, 0])])
def test_thresholds_are_the_stated_places(pairs, places):
    value = torch.arange(pairs, dtype=torch.float64) / pairs
    assert batch_thresholds(value[torch.randperm(pairs, generator=torch.Generator().manual_seed(0))]).tolist() == [float(value[-1 - place]) for place in places]


def whole(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor, hardest: int) -> tuple[float, float]:
    """Steps 1-6 of §4.1 by double loop, thresholds of this batch alone."""
    def pairs(rows):
        unit = F.normalize(rows)
        return [(float(unit[i] @ unit[j]), bool(label[i] == label[j])) for i in range(len(rows)) for j in range(i + 1, len(rows))]

    s, t = pairs(student), pairs(teacher)
    others = [sorted((cos for cos, mated in found if not mated), reverse=True) for found in (s, t)]
    levels = [[column[len(column) // 10**k] for k in range(1, 7)] for column in others]
    rank = lambda cos, level: sum(1 / (1 + float(torch.exp(torch.tensor((thr - cos) / 0.01, dtype=torch.float64)))) for thr in level)  # noqa: E731
    gaps = [(rank(a[0], levels[0]) - rank(b[0], levels[1])) ** 2 for a, b in zip(s, t)]
    hard = sorted((i for i, x in enumerate(s) if not x[1]), key=lambda i: -s[i][0])[:hardest]
    mated = [gap for gap, x in zip(gaps, s) if x[1]]
    return sum(mated) / len(mated), sum(gaps[i] for i in hard) / len(hard)


def test_first_step_is_right_and_matches_the_double_loop():
    """Released thresholds start at 0, so that the first step ranks against (almost) nothing; here the first batch's are used."""
    label, student, teacher = torch.arange(24) // 3, embedded(), embedded(seed=1)
    term = Ekd(EkdConfig(hardest=20)).double()
    found = term(student, teacher, label)
    positive, negative = whole(student, teacher, label, 20)
    assert float(found["positive"]) == pytest.approx(positive, rel=1e-6) and float(found["negative"]) == pytest.approx(negative, rel=1e-6)
    assert float(found["loss"]) == pytest.approx(0.02 * positive + 0.01 * negative, rel=1e-6)


def test_running_mean_is_unbiased_and_compat_is_not():
    label, student = torch.arange(24) // 3, embedded()
    right, released = Ekd(EkdConfig()), Ekd(EkdConfig(compat=True))
    for _ in range(100):
        right(student, student, label)
        released(student, student, label)
    unit = F.normalize(student)
    i, j = torch.triu_indices(24, 24, 1)
    wanted = batch_thresholds((unit @ unit.T)[i, j][label[i] != label[j]]).float()
    assert torch.allclose(right.thresholds()[0], wanted, atol=1e-5)
    assert torch.allclose(released.thresholds()[0], wanted * (1 - 0.99**100), atol=1e-5)


def test_evaluation_and_nan_leave_the_thresholds_alone():
    label, student, term = torch.arange(24) // 3, embedded(), Ekd(EkdConfig())
    term(student, student, label)
    before = {key: value.clone() for key, value in term.state_dict().items()}
    term(student * torch.nan, student, label)
    term.eval()(embedded(seed=3), student, label)
    assert all(torch.equal(before[key], value) for key, value in term.state_dict().items())


@pytest.mark.parametrize("label", [torch.arange(6), torch.zeros(6, dtype=torch.long)], ids=["no mated pair", "one identity"])
def test_no_nan_where_a_kind_of_pair_is_missing(label):
    for warm in (False, True):
        term = Ekd(EkdConfig())
        if warm:
            term(embedded(24), embedded(24, 1), torch.arange(24) // 3)
        student = embedded(6).requires_grad_()
        found = term(student, embedded(6, 1), label)
        found["loss"].backward()
        assert all(torch.isfinite(value) for value in found.values()) and torch.isfinite(student.grad).all()
        assert (float(found["positive"]) == 0) == (len(set(label.tolist())) == 6 or not warm)
    assert float(Ekd(EkdConfig())(embedded(1), embedded(1), torch.tensor([0]))["loss"]) == 0


def test_identical_images_and_true_gradient():
    label, teacher = torch.arange(8) // 2, embedded(8, 1)
    term = Ekd(EkdConfig(tau=0.5)).double()
    term(embedded(8), teacher, label)
    term.eval()
    student = embedded(8)
    student[1] = student[0]  # an identity with too few images repeats one
    assert gradcheck(lambda x: term(x, teacher, label)["loss"], student.requires_grad_(), atol=1e-6)


def test_no_gradient_reaches_the_teacher():
    teacher = embedded(8, 1).requires_grad_()
    student = embedded(8).requires_grad_()
    Ekd(EkdConfig())(student, teacher, torch.arange(8) // 2)["loss"].backward()
    assert teacher.grad is None and student.grad is not None
