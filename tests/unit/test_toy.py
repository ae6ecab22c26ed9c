"""The toy model, and the speech that it understands."""

from __future__ import annotations

import numpy as np
import pytest

from rechka.errors import BadCard, BadSamples
from rechka.models import toy
from rechka.protocols import AcousticModel
from rechka.testing import say
from rechka.types import F32


def heard(model: toy.ToyModel, audio: F32) -> str:
    """Letters as the model emits them, repeats collapsed."""
    [frames], _ = model.step([audio], [model.initial_state()])
    best = frames.values.argmax(axis=1)
    assert np.allclose(np.exp(frames.values).sum(axis=1), 1.0, atol=1e-5)
    return toy.TOKENS.text(token for i, token in enumerate(best) if i == 0 or token != best[i - 1])


def test_every_letter_at_every_offset() -> None:
    letters = "".join(toy.TOKENS.symbols[:34])
    model = toy.ToyModel(pad=0, lag=0)
    for offset in range(0, 480, 37):
        audio = np.concatenate([np.zeros(offset, dtype=np.float32), say(letters + "ллаа")])
        audio = np.pad(audio, (0, -len(audio) % 2400))
        assert heard(model, audio) == letters + "ллаа"


def test_it_is_deaf_at_first_and_late_always() -> None:
    """Without padding in front and silence behind, letters are lost: the stream must add both."""
    audio = np.pad(say("абвгд"), (0, -len(say("абвгд")) % 2400))
    assert heard(toy.ToyModel(lag=0), audio) == "гд"
    assert heard(toy.ToyModel(pad=0), audio) == "абв"


def test_it_fits_the_protocol_and_loads_like_a_family() -> None:
    model = toy.load({}, {"chunk": 4800, "shift": 2400})
    assert isinstance(model, AcousticModel)
    assert (model.spec.chunk, model.spec.shift, model.spec.pad, model.spec.lag) == (4800, 2400, 2400, 2640)


@pytest.mark.parametrize(
    "params", [{"hop": 1}, {"chunk": 100}, {"shift": 0}, {"chunk": 240, "shift": 480}, {"lag": -240}]
)
def test_parameters_that_make_no_sense(params: dict[str, int]) -> None:
    with pytest.raises(BadCard):
        toy.load({}, params)


def test_a_chunk_of_the_wrong_length() -> None:
    model = toy.ToyModel()
    with pytest.raises(BadSamples, match=r"2400 samples .* got 1600; let Stream"):
        model.step([np.zeros(1600, dtype=np.float32)], [model.initial_state()])
