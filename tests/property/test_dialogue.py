"""Echo between channels: what only one channel has stays, every dropped word has a counterpart that stays."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.recognizers.dialogue import EchoOptions, dialogue
from rechka.types import Segment, Transcript, Word

VOCABULARY = ("да", "нет", "хорошо", "договор", "договора", "номер", "добрый", "день")
spoken = st.tuples(
    st.lists(st.tuples(st.sampled_from(VOCABULARY), st.sampled_from((0.3, 0.5, 0.9))), min_size=1, max_size=8),
    st.floats(0, 6),
    st.integers(0, 2),
    st.sampled_from((0.3, 0.4)),
)


def segment(texts: list[tuple[str, float]], start: float, channel: int, step: float) -> Segment:
    words = tuple(
        Word(text, start + step * i, start + step * i + 0.25, confidence) for i, (text, confidence) in enumerate(texts)
    )
    return Segment(" ".join(text for text, _ in texts), start, words[-1].end, words, str(channel), channel)


def made(parts: list[tuple[list[tuple[str, float]], float, int, float]]) -> Transcript:
    return Transcript(tuple(segment(*part) for part in parts), "ru", "m", 20.0)


def places(transcript: Transcript) -> Counter[tuple[int, Word]]:
    return Counter((segment.channel, word) for segment in transcript.segments for word in segment.words)


@settings(deadline=None, max_examples=100)
@given(st.lists(spoken, max_size=6))
def test_every_dropped_word_has_a_counterpart_of_its_own(
    parts: list[tuple[list[tuple[str, float]], float, int, float]],
) -> None:
    """With two channels: as many words near in time stay on the other one as are dropped."""
    before = made([(texts, start, channel % 2, step) for texts, start, channel, step in parts])
    found = dialogue(before)
    kept, dropped = places(found), places(before) - places(found)
    assert not kept - places(before)
    for channel, word in dropped:
        near = [
            other
            for at, other in kept
            if at != channel
            and abs(other.start - word.start) <= EchoOptions().latest_s
            and other.text[:3] == word.text[:3]
        ]
        assert near, f"{word} has no counterpart"
    assert sum(dropped.values()) <= sum(kept.values())


@settings(deadline=None, max_examples=100)
@given(st.lists(spoken, max_size=6))
def test_words_that_only_one_channel_has_are_never_dropped(
    parts: list[tuple[list[tuple[str, float]], float, int, float]],
) -> None:
    before = made(parts)
    said = {channel: {w.text for s in before.segments if s.channel == channel for w in s.words} for channel in range(3)}
    found = places(dialogue(before))
    for (channel, word), number in places(before).items():
        alone = all(word.text[:3] not in {text[:3] for text in said[other]} for other in range(3) if other != channel)
        assert not alone or found[channel, word] == number


@settings(deadline=None, max_examples=100)
@given(st.lists(spoken, max_size=6))
def test_the_conversation_is_in_order_and_done(parts: list[tuple[list[tuple[str, float]], float, int, float]]) -> None:
    found = dialogue(made(parts))
    starts = [(segment.start, segment.channel) for segment in found.segments]
    assert starts == sorted(starts)
    for segment_ in found.segments:
        assert segment_.words
        assert segment_.text == " ".join(word.text for word in segment_.words)
        assert segment_.start <= segment_.words[0].start
        assert segment_.end >= segment_.words[-1].end


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.sampled_from(("заявка", "оформлена", "вчера", "курьер", "приедет", "завтра")),
        min_size=3,
        max_size=9,
        unique=True,
    ),
    st.floats(0.1, 0.5),
    st.booleans(),
)
def test_an_echo_is_always_found(texts: list[str], delay: float, swapped: bool) -> None:
    original = segment([(text, 0.9) for text in texts], 1.0, int(swapped), 0.4)
    echo = segment([(text, 0.6) for text in texts], 1.0 + delay, int(not swapped), 0.4)
    found = dialogue(Transcript((echo, original), "ru", "m", 9.0))
    assert found.segments == (original,)
