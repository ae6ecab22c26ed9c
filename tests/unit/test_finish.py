"""A finished transcript made readable: echo out, punctuation by pauses, everything in its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.cli.main import main
from rechka.errors import IncompatibleParts
from rechka.recognizers.dialogue import dialogue
from rechka.recognizers.finish import finish
from rechka.testing import say
from rechka.text.punctuation import PausePunctuator, punctuated
from rechka.types import Segment, Transcript, Word


def phrase(text: str, start: float, channel: int = 0, confidence: float = 0.9, step: float = 0.4) -> Segment:
    words = tuple(
        Word(word, start + step * i, start + step * i + 0.3, confidence) for i, word in enumerate(text.split())
    )
    return Segment(text, start, words[-1].end, words, str(channel + 1), channel)


def made(*segments: Segment) -> Transcript:
    return Transcript(segments, "ru", "m", 60.0)


def lines(transcript: Transcript) -> list[tuple[int, str]]:
    return [(segment.channel, segment.text) for segment in transcript.segments]


def test_echo_goes_and_the_conversation_is_in_order() -> None:
    found = dialogue(
        made(
            phrase("добрый день чем могу помочь", 1.0, 0, 0.9),
            phrase("я хочу узнать баланс", 5.0, 1, 0.9),
            phrase("добрый день чем могу помочь", 1.3, 1, 0.5),
        )
    )
    assert lines(found) == [(0, "добрый день чем могу помочь"), (1, "я хочу узнать баланс")]


def test_words_beside_an_echo_stay() -> None:
    found = dialogue(
        made(phrase("назовите номер договора", 1.0, 0), phrase("назовите номер договора пять два", 1.2, 1, 0.6))
    )
    assert lines(found) == [(0, "назовите номер договора"), (1, "пять два")]
    assert found.segments[1].start == pytest.approx(1.2 + 3 * 0.4)


@pytest.mark.parametrize(
    "other",
    [
        phrase("да хорошо", 1.2, 1, 0.5),  # too short: people do say the same
        phrase("добрый день чем могу помочь", 3.5, 1, 0.5),  # too late
        phrase("добрый день чем могу помочь", 1.2, 1, 0.99),  # better heard than what it would be an echo of
        phrase("добрый вечер чем можно помочь", 1.2, 1, 0.5),  # other words
    ],
)
def test_what_is_no_echo_stays(other: Segment) -> None:
    first = phrase("добрый день чем могу помочь да хорошо", 1.0, 0, 0.9)
    assert (1, other.text) in lines(dialogue(made(first, other)))


def test_an_echo_that_was_misheard_in_part() -> None:
    found = dialogue(
        made(
            phrase("ваша заявка оформлена вчера вечером", 1.0, 0, 0.9),
            phrase("ваша заявка оформлено вчера вечерам", 1.25, 1, 0.4),
            phrase("понятно спасибо", 4.0, 1),
        )
    )
    assert lines(found) == [(0, "ваша заявка оформлена вчера вечером"), (1, "понятно спасибо")]


def test_crosstalk_at_the_same_time_goes_by_confidence() -> None:
    clear, faint = (
        phrase("назовите ваш номер договора", 1.0, 1, 0.9),
        phrase("назовите ваш номер договора", 1.0, 0, 0.5),
    )
    assert lines(dialogue(made(faint, clear))) == [(1, "назовите ваш номер договора")]


def test_one_word_is_the_echo_of_one_word() -> None:
    found = dialogue(made(phrase("да", 1.0, 0), phrase("да да да", 1.1, 1, 0.5, step=0.2)))
    assert lines(found) == [(0, "да"), (1, "да да да")]
    both = [(0, "да да да"), (1, "да да да")]
    assert lines(dialogue(made(phrase("да да да", 1.0, 0), phrase("да да да", 1.1, 1, 0.5)))) == both


def test_talk_over_one_another_stays_in_order() -> None:
    long = phrase("я хотел бы узнать когда приедет ваш мастер", 1.0, 0)
    found = dialogue(made(phrase("минуту", 5.0, 1), long, phrase("угу", 2.0, 1)))
    assert lines(found) == [(0, long.text), (1, "угу"), (1, "минуту")]


def test_a_phrase_cut_without_a_pause_ends_no_sentence() -> None:
    cut = made(phrase("это очень длинная", 1.0), phrase("фраза и всё", 1.0 + 3 * 0.4), phrase("другая", 9.0))
    assert [segment.text for segment in punctuated(cut).segments] == ["Это очень длинная", "фраза и всё.", "Другая."]


def test_a_punctuator_that_adds_words_is_refused() -> None:
    class Doubling:
        def __call__(self, words: Sequence[Word], /, *, final: bool = True) -> tuple[Word, ...]:
            return (*words, *words)

    with pytest.raises(IncompatibleParts, match="as many words"):
        punctuated(made(phrase("да", 0.0)), Doubling())


def test_pauses_become_full_stops() -> None:
    words = (Word("да", 0.0, 0.3, 0.9), Word("я", 0.4, 0.5), Word("слышу", 1.5, 2.0), Word("вас", 2.1, 2.4))
    found = PausePunctuator()(words)
    assert [word.text for word in found] == ["Да", "я.", "Слышу", "вас."]
    assert [(word.start, word.end, word.confidence) for word in found] == [
        (w.start, w.end, w.confidence) for w in words
    ]
    assert [word.text for word in PausePunctuator()(words, final=False)] == ["Да", "я.", "Слышу", "вас"]
    assert PausePunctuator()(()) == ()


@settings(deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=12))
def test_punctuation_of_a_growing_text_never_changes(gaps: list[float]) -> None:
    words, at = [], 0.0
    for gap in gaps:
        words.append(Word("слово", at + gap, at + gap + 0.2))
        at += gap + 0.2
    before: list[str] = []
    for size in range(1, len(words) + 1):
        shown = [word.text for word in PausePunctuator()(words[:size], final=False)]
        assert shown[: size - 2] == before[: size - 2]
        before = shown


def test_everything_together() -> None:
    transcript = made(
        phrase("ваш долг сто двадцать рублей", 1.0, 0), phrase("ваш долг сто двадцать рублей", 1.3, 1, 0.4)
    )
    found = finish(transcript, digits=True, punctuate=True)
    assert lines(found) == [(0, "Ваш долг 120 рублей.")]
    assert finish(made(phrase("да", 0.0)), digits=False) == made(phrase("да", 0.0))


def test_segments_without_words_stay() -> None:
    bare = Segment("текст", 0, 1)
    assert punctuated(made(bare)).segments == (bare,)
    assert finish(made(replace(bare, text="сто два")), digits=True).segments[0].text == "102"


def test_the_verb_takes_digits_and_punctuation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = say("сто два рубля", before_s=0.5, after_s=0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([audio, np.zeros_like(audio)], axis=1), 8000)
    assert main(["transcribe", str(tmp_path / "a.wav"), "-m", "toy", "--format", "txt", "--digits", "--punctuate"]) == 0
    assert capsys.readouterr().out == "102 рубля.\n"
