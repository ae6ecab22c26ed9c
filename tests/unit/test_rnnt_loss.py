"""The transducer's loss: every alignment counted by hand, exact gradients, slices, ragged batches."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch")
from rechka.errors import DataError  # noqa: E402
from rechka.train.rnnt_loss import lattice_loss, rnnt_loss, transducer_loss  # noqa: E402


def by_hand(logits: Any, target: list[int], blank: int) -> float:
    """Minus the log of the summed probability of every order of T blanks and U tokens that ends with a blank."""
    logp = logits.double().log_softmax(-1)
    frames, total = logits.shape[0], []
    for places in itertools.combinations(range(frames + len(target) - 1), len(target)):
        t, u, score = 0, 0, 0.0
        for place in range(frames + len(target)):
            if place in places:
                score, u = score + logp[t, u, target[u]].item(), u + 1
            else:
                score, t = score + logp[t, u, blank].item(), t + 1
        total.append(score)
    return -torch.tensor(total, dtype=torch.float64).logsumexp(0).item()


@settings(max_examples=40, deadline=None)
@given(
    frames=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    lengths=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    blank=st.integers(0, 4),
    seed=st.integers(0, 10_000),
)
def test_equals_all_alignments_counted_by_hand(frames: list[int], lengths: list[int], blank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = lengths[: len(frames)]
    logits = 3 * torch.randn(len(frames), max(frames), max(lengths) + 1, 5, generator=generator)
    targets = torch.randint(0, 4, (len(frames), max(lengths)), generator=generator)
    targets = targets + (targets >= blank)
    losses = rnnt_loss(logits, targets, torch.tensor(frames), torch.tensor(lengths), blank=blank)
    for row, (t, u) in enumerate(zip(frames, lengths, strict=True)):
        expected = by_hand(logits[row, :t, : u + 1], targets[row, :u].tolist(), blank)
        assert losses[row].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def case(dtype: Any) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, 4, 6, dtype=dtype, generator=generator)
    return logits, torch.randint(1, 6, (3, 3), generator=generator), torch.tensor([5, 3, 1]), torch.tensor([3, 1, 0])


def test_gradient_is_exact() -> None:
    logits, *rest = case(torch.float64)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rnnt_loss(x, *rest, blank=0), (logits,))


def test_padding_gets_no_gradient_and_gives_none() -> None:
    logits, targets, frames, lengths = case(torch.float32)
    logits.requires_grad_()
    rnnt_loss(logits, targets, frames, lengths, blank=0).sum().backward()
    assert logits.grad[1, 3:].abs().max() == 0
    assert logits.grad[1, :, 2:].abs().max() == 0
    changed = logits.detach().clone()
    changed[1, 3:], changed[1, :, 2:] = 9.0, -9.0
    before, after = (rnnt_loss(x, targets, frames, lengths, blank=0) for x in (logits, changed))
    assert torch.equal(before[1], after[1])


def test_arcs_of_a_frame_sum_to_one() -> None:
    """Every path leaves every frame by exactly one blank."""
    stays = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    moves = torch.randn(2, 7, 3, dtype=torch.float64)
    lattice_loss(stays, moves, torch.tensor([7, 4]), torch.tensor([3, 2])).sum().backward()
    left = -stays.grad.sum(dim=2)
    assert torch.allclose(left[0], torch.ones(7, dtype=torch.float64))
    assert torch.allclose(left[1], torch.tensor([1.0] * 4 + [0.0] * 3, dtype=torch.float64))


def test_slices_give_the_same_loss_and_gradients_and_hold_no_more_than_allowed() -> None:
    generator = torch.Generator().manual_seed(2)
    encoded, predicted = (torch.randn(2, n, 8, generator=generator) for n in (23, 6))
    weight = torch.randn(8, 11, generator=generator)
    targets = torch.randint(0, 10, (2, 5), generator=generator)
    sizes, outcomes = [], []
    for cells in (1 << 20, 1000):
        leaves = [x.clone().requires_grad_() for x in (encoded, predicted, weight)]

        def joint(a: Any, b: Any, weight: Any = leaves[2], cells: int = cells) -> Any:
            out = torch.tanh(a[:, :, None] + b[:, None]) @ weight
            sizes.append((cells, out.numel()))
            return out

        losses = transducer_loss(
            joint, leaves[0], leaves[1], targets, torch.tensor([23, 11]), torch.tensor([5, 2]),
            blank=10, classes=11, cells=cells,
        )  # fmt: skip
        losses.sum().backward()
        outcomes.append([losses, *(leaf.grad for leaf in leaves)])
    for whole, sliced in zip(*outcomes, strict=True):
        torch.testing.assert_close(whole, sliced, rtol=1e-5, atol=1e-5)
    assert max(size for cells, size in sizes if cells == 1000) <= 1000
    assert len([size for cells, size in sizes if cells == 1000]) > 2 * 2  # once forward, once more for the gradient


def test_long_lattices_stay_finite() -> None:
    stays = torch.full((1, 900, 201), -30.0, requires_grad=True)
    loss = lattice_loss(stays, torch.full((1, 900, 200), -30.0), torch.tensor([900]), torch.tensor([200]))
    loss.backward()
    assert torch.isfinite(loss).all()
    assert -stays.grad.sum().item() == pytest.approx(900, rel=1e-4)


@pytest.mark.parametrize(("frames", "lengths"), [([0, 3], [1, 1]), ([3, 4], [1, 1]), ([3, 3], [1, 3])])
def test_lengths_that_make_no_lattice_are_refused(frames: list[int], lengths: list[int]) -> None:
    with pytest.raises(DataError):
        lattice_loss(torch.zeros(2, 3, 3), torch.zeros(2, 3, 2), torch.tensor(frames), torch.tensor(lengths))
