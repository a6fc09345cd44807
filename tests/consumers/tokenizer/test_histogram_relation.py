"""L_hist: the worked example of consumers.md §7, a slow loop, gradients, invariances."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from facefoundry.consumers.tokenizer.histogram_relation import default_alpha, histogram_divergence, histogram_relation_loss, log_histogram, relations

STUDENT = torch.tensor([[1.0, 0], [0, 1], [1, 1]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0], [0, 1], [-1, 0]], dtype=torch.float64)


def book(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_histogram(rows, bins: int, alpha: float) -> list[float]:
    """Bins and pairs in plain loops."""
    rows = rows.tolist()
    mass = []
    for k in range(bins):
        centre, total = -1 + 2 * k / (bins - 1), 0.0
        for i in range(len(rows)):
            for j in range(i, len(rows)):
                dot = sum(a * b for a, b in zip(rows[i], rows[j]))
                cosine = dot / math.sqrt(sum(a * a for a in rows[i])) / math.sqrt(sum(b * b for b in rows[j]))
                total += math.exp(-alpha * (cosine - centre) ** 2)
        mass.append(total)
    return [value / sum(mass) for value in mass]


def test_the_worked_example():
    p_s, p_t = (log_histogram(rows, bins=5, alpha=10.0).exp() for rows in (STUDENT, TEACHER))
    assert torch.allclose(p_s, torch.tensor([0.00001, 0.01249, 0.15417, 0.24803, 0.58530], dtype=torch.float64), atol=5e-6)
    assert torch.allclose(p_t, torch.tensor([0.15023, 0.03699, 0.30046, 0.06165, 0.45066], dtype=torch.float64), atol=5e-6)
    assert histogram_relation_loss(STUDENT, TEACHER, bins=5, alpha=10.0).item() == pytest.approx(1.53748, abs=5e-6)
    assert histogram_relation_loss(TEACHER, STUDENT, bins=5, alpha=10.0).item() == pytest.approx(0.38178, abs=5e-6)


def test_pairs_are_i_up_to_j_with_themselves():
    assert relations(STUDENT).tolist() == pytest.approx([1, 0, 0.5**0.5, 1, 0.5**0.5, 1])


@pytest.mark.parametrize(("bins", "alpha", "chunk"), [(5, 10.0, 1 << 18), (40, None, 1 << 18), (40, None, 7), (40, 20.0, 3)])
def test_against_a_slow_loop_whole_and_in_chunks(bins, alpha, chunk):
    rows = book(9, 4)
    slow = slow_histogram(rows, bins, alpha or (bins - 1) ** 2 / 8)
    assert log_histogram(rows, bins=bins, alpha=alpha, chunk=chunk).exp().tolist() == pytest.approx(slow, abs=1e-12)


def test_default_width_is_one_bin():
    assert default_alpha(40) == pytest.approx(190.1, abs=0.05)
    assert (2 * default_alpha(40)) ** -0.5 == pytest.approx(2 / 39)


@pytest.mark.parametrize("chunk", [1 << 18, 4])
def test_gradient(chunk):
    teacher = log_histogram(book(6, 5, 1), bins=7, alpha=6.0)
    assert gradcheck(lambda rows: histogram_divergence(log_histogram(rows, bins=7, alpha=6.0, chunk=chunk), teacher), book(5, 3).requires_grad_())


def test_no_gradient_reaches_the_teacher():
    teacher, student = book(6, 3, 1).requires_grad_(), book(6, 3).requires_grad_()
    histogram_relation_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().max() > 0


def test_only_relations_count():
    rows, turn = book(12, 4), torch.linalg.qr(book(4, 4, 3))[0]
    assert histogram_relation_loss(3.0 * rows @ turn, rows).item() == pytest.approx(0, abs=1e-12)  # another book, the same histogram
    assert histogram_relation_loss(rows * torch.rand(12, 1, dtype=torch.float64).add(0.1), rows).item() == pytest.approx(0, abs=1e-12)
    assert histogram_relation_loss(rows, book(30, 7, 5)) > 0  # neither rows nor dimensions need agree


def test_bins_far_from_every_pair_stay_finite():
    rows = torch.ones(3, 4, requires_grad=True)  # all cosines 1, float32: the plain sum of bin -1 is exp(-760) = 0
    loss = histogram_relation_loss(rows, TEACHER.float())
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(rows.grad).all()


def test_descent_reaches_the_teachers_histogram():
    student, teacher = (book(24, 4) * 0.2 + torch.tensor([1.0, 0, 0, 0])).requires_grad_(), book(24, 4, 1)
    before, optimiser = histogram_relation_loss(student, teacher).item(), torch.optim.Adam([student], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        loss = histogram_relation_loss(student, teacher)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 * before


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_alone_it_spreads_a_book_as_the_teachers(shared):
    """From random rows and from rows that share a direction the loss falls steadily: sign, gradient and normalisation drive the right way."""
    draw = torch.Generator().manual_seed(0)
    teacher = log_histogram(torch.randn(60, 24, generator=draw))
    rows = (F.normalize(shared * torch.ones(8) + torch.randn(60, 8, generator=draw), dim=1) * 0.14).requires_grad_()
    step, seen = torch.optim.Adam([rows], lr=1.5e-3), []
    for _ in range(60):
        seen.append(histogram_divergence(log_histogram(rows), teacher))
        step.zero_grad()
        (0.01 * seen[-1]).backward()
        step.step()
    assert seen[30] < 0.8 * seen[0] and seen[-1] < 0.8 * seen[30]


def test_bad_input():
    with pytest.raises(ValueError, match="at least two"):
        log_histogram(book(1, 3))
    with pytest.raises(ValueError, match="row_KD"):
        log_histogram(torch.zeros(3))
