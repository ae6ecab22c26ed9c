"""A CTC draft verified by a scripted Whisper: kept where it is believed, decoded from the first doubt on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from rechka.decoding.whisper import Alignment, Generated, WhisperOptions
from rechka.errors import UsageError
from rechka.models.whisper import WhisperModel
from rechka.recognizers.draft import DraftReader, scored
from rechka.recognizers.two_pass import as_reader
from rechka.recognizers.whisper import WhisperRecognizer
from rechka.testing.whisper import Ask, ScriptedKernel, WordCodec, clock
from rechka.types import F32, Segment

CODEC = WordCodec()
TEXT = "речка течёт мимо старой мельницы"


class Drafts:
    """Writes the same draft for every phrase."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sizes: list[int] = []

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        self.sizes += [len(audio) for audio in phrases]
        return [Segment(self.text, 0.0, 1.0) for _ in phrases]


def places(doubtful: Sequence[str]) -> Callable[[F32, Sequence[int]], Alignment]:
    def find(audio: F32, tokens: Sequence[int]) -> Alignment:
        probs = tuple(0.05 if CODEC.decode([token]).strip() in doubtful else 0.9 for token in tokens)
        return Alignment(tuple(10 * i for i in range(len(tokens) + 1)), probs)

    return find


def says(text: str, *, logprob: float = -0.2, no_speech: float = 0.0) -> Generated:
    tokens = tuple(CODEC.encode(text))
    return Generated(tokens, logprob * (len(tokens) + 1), no_speech)


def make(draft: str, script: Any, doubtful: Sequence[str] = (), **more: Any) -> tuple[DraftReader, ScriptedKernel]:
    kernel = ScriptedKernel(script, places=places(doubtful))
    options = WhisperOptions(language="ru", mode="sequential", vad="none", temperatures=(0.0,))
    return DraftReader(WhisperRecognizer(WhisperModel(kernel, CODEC, options)), Drafts(draft), **more), kernel


def never(ask: Ask) -> Generated:
    raise AssertionError("nothing was to be decoded")


def test_a_draft_that_is_believed_is_never_decoded() -> None:
    reader, kernel = make(TEXT, never)
    [found] = reader.verify([clock(3.0)])
    assert found.segment.text == TEXT
    assert (found.kept, found.decoded) == (5, 0)
    assert [word.text for word in found.segment.words] == TEXT.split()
    assert [word.start for word in found.segment.words] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert kernel.calls == []
    assert len(kernel.aligned) == 1


def test_decoding_begins_at_the_first_word_that_is_not_believed() -> None:
    def script(ask: Ask) -> Generated:
        told = CODEC.decode([token for token in ask.prompt if CODEC.special.is_text(token)])
        assert told == " речка течёт"
        return says("мимо новой мельницы")

    reader, kernel = make(TEXT.replace("мимо", "мима"), script, doubtful=["мима"])
    [found] = reader.verify([clock(3.0)])
    assert found.segment.text == "речка течёт мимо новой мельницы"
    assert (found.kept, found.decoded) == (2, 3)
    assert found.segment.labels["draft"] == "used"
    assert len(kernel.calls) == 1


def test_a_draft_of_nothing_believed_costs_one_look() -> None:
    reader, _ = make("совсем другое", lambda ask: says(TEXT), doubtful=["совсем"])
    [found] = reader.verify([clock(3.0)])
    assert found.segment.text == TEXT
    assert found.segment.labels["draft"] == "rejected"


def test_without_a_draft_whisper_decodes_under_guard() -> None:
    """No letters were heard: text that is suspicious by itself is dropped, plain text stays."""
    reader, _ = make("", lambda ask: says("Продолжение следует"))
    [found] = reader.verify([clock(3.0)])
    assert found.segment.text == ""
    assert found.segment.labels["dropped"][0]["signs"] == ["credits", "no letters heard"]
    reader, _ = make("", lambda ask: says(TEXT))
    assert reader.read([clock(3.0)])[0].text == TEXT


def test_a_text_that_meets_the_limit_of_tokens_is_divided_as_ever() -> None:
    def script(ask: Ask) -> Generated:
        found = says("раз два" if ask.seconds > 8 else ("раз" if ask.start < 1 else "два"))
        return Generated(found.tokens, found.logprob, 0.0, truncated=ask.seconds > 8)

    reader, _ = make(TEXT, script, doubtful=["речка"])
    assert reader.read([clock(10.0)])[0].text == "раз два"


def test_a_draft_longer_than_whisper_can_write_is_not_taken_for_verified() -> None:
    long = " ".join(f"слово{i}" for i in range(300))
    reader, kernel = make(long, lambda ask: says(TEXT))
    [found] = reader.verify([clock(20.0)])
    assert (found.segment.text, found.kept) == (TEXT, 0)
    assert all(len(text) <= 224 for call in kernel.aligned for text in call)


def test_phrases_share_calls_and_keep_their_order() -> None:
    reader, kernel = make(TEXT, lambda ask: says("да"), doubtful=["речка"])
    found = reader.read([clock(1.0), np.zeros(0, np.float32), clock(2.0), clock(31.0)])
    assert [segment.text for segment in found][:3] == ["да", "", "да"]
    assert [len(call) for call in kernel.calls][:1] == [2]
    assert as_reader(reader) is reader


def test_the_drafter_gets_audio_at_its_own_rate() -> None:
    reader, _ = make(TEXT, never, rate=8000)
    reader.read([clock(2.0)])
    assert isinstance(reader.drafter, Drafts)
    assert reader.drafter.sizes == [16000]


def test_shares_are_told() -> None:
    reader, _ = make(TEXT, lambda ask: says("да"), doubtful=["мельницы"])
    shares = scored(reader.verify([clock(1.0), clock(2.0)]))
    assert shares == {"phrases_kept": 0.0, "tokens_kept": 0.8, "tokens_decoded": 0.2}


def test_what_cannot_work_is_refused() -> None:
    model = WhisperModel(ScriptedKernel(never), CODEC, WhisperOptions(mode="sequential", vad="none"))
    with pytest.raises(UsageError, match="needs a language"):
        DraftReader(WhisperRecognizer(model), Drafts(TEXT))
    with pytest.raises(UsageError, match="between 0 and 1"):
        make(TEXT, never, min_prob=1.0)
