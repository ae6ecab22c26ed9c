"""What tells a chunked transducer speech from silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from rechka.hub.layouts import recognise
from rechka.models import zipformer
from rechka.recognizers.listening import Listener
from rechka.testing.transducers import write_transducer
from rechka.types import Encoded


def test_speech_is_where_greedy_search_emits_and_nothing_piles_up(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "m", "zipformer2", blank=10.0)
    card = recognise(folder)
    assert card is not None
    model = zipformer.load({role: folder / file.path for role, file in card.files.items()}, {}, threads=1)
    assert model.spec.tokens is not None
    assert model.spec.chunk is not None
    listener = Listener(model.transducer, model.spec.tokens)
    noise = (0.1 * np.random.default_rng(0).standard_normal(model.spec.chunk + 15 * 5120)).astype(np.float32)
    (frames,), _ = model.step([noise], [model.initial_state()])
    (whole,) = listener.search.advance([listener.search.begin()], [frames])
    assert 0 < len(whole.tokens) < len(frames)

    path = listener.search.begin()
    heard = []
    for first in range(0, len(frames), 8):
        piece = Encoded(frames.values[first : first + 8], first)
        (path,) = listener.search.advance([path], [piece])
        speech, path = listener.told(path, piece)
        heard.append(speech)
        assert (path.tokens, path.frames, path.logprobs) == ((), (), ())
    assert np.flatnonzero(np.concatenate(heard)).tolist() == list(whole.frames)
