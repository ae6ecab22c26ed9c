"""Retries: what makes a text be tried again, what comes of it, and that batches change nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding.whisper import Attempt, Generated, Prompt, Task, WhisperOptions, decode
from rechka.decoding.whisper.fallback import choose
from rechka.decoding.whisper.prompt import before, head
from rechka.testing.whisper import Ask, ScriptedKernel, WordCodec

CODEC = WordCodec()
HEAD = head(CODEC.special, language="ru", task="transcribe", multilingual=True)
GOOD = "мы встретились у старого моста"
LOOP = "да да да да да да да"
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def said(text: str, *, mean: float = -0.3, no_speech: float = 0.01, truncated: bool = False) -> Generated:
    """A text with a mean log-probability, stamps left out."""
    tokens = tuple(CODEC.encode(text))
    return Generated(tokens, mean * (len(tokens) + 1), no_speech, truncated)


def by_temperature(*answers: Generated) -> Callable[[Ask], Generated]:
    """The first answer at temperature 0, and so on; the last one at all others."""
    return lambda ask: answers[min(TEMPERATURES.index(ask.search.temperature), len(answers) - 1)]


def task(number: int = 1, *, given: str = "", language: str = "ru", stamps: bool = False, once: bool = False) -> Task:
    prompt = Prompt(before(CODEC, previous=CODEC.encode(given)), HEAD, stamps)
    return Task(np.full(1600, number, np.float32), prompt, given, language, once)


def run(script: Callable[[Ask], Generated], *tasks: Task, **options: object) -> tuple[list[Attempt], ScriptedKernel]:
    kernel = ScriptedKernel(script)
    found = decode(kernel, CODEC, tasks or (task(),), WhisperOptions(**options))  # type: ignore[arg-type]
    return found, kernel


def temperatures(kernel: ScriptedKernel) -> list[float]:
    return [call[0].search.temperature for call in kernel.calls]


def test_a_good_text_is_taken_at_once() -> None:
    [found], kernel = run(by_temperature(said(GOOD)))
    assert (found.text.strip(), found.temperature, found.reasons, found.failed) == (GOOD, 0.0, (), False)
    assert found.logprob == pytest.approx(-0.3)
    assert temperatures(kernel) == [0.0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (said(GOOD, mean=-1.2), "logprob"),
        (said(LOOP), "loop"),
        (said("и это было очень хорошо " * 8), "compression"),
        (said("thank you very much for watching"), "language"),
        (said(GOOD, mean=math.nan), "logprob"),
        (said(GOOD, mean=-math.inf), "logprob"),
    ],
)
def test_reasons_to_try_again(bad: Generated, reason: str) -> None:
    [found], kernel = run(by_temperature(bad, bad, said(GOOD)))
    assert (found.text.strip(), found.temperature) == (GOOD, 0.4)
    assert temperatures(kernel) == [0.0, 0.2, 0.4]
    [first], _ = run(by_temperature(bad), temperatures=(0.0,))
    assert reason in first.reasons
    assert first.failed


def test_beam_search_at_zero_samples_above() -> None:
    _, kernel = run(by_temperature(said(LOOP), said(GOOD)), beam_size=4, best_of=3)
    first, second = (call[0].search for call in kernel.calls)
    assert (first.temperature, first.beam_size) == (0.0, 4)
    assert (second.temperature, second.best_of) == (0.2, 3)


@pytest.mark.parametrize("listed", [(-1,), (), (7, 9)])
def test_special_tokens_are_never_written_whatever_the_list(listed: tuple[int, ...]) -> None:
    """Fine-tuned models often come with an empty list; then nothing else would forbid a second start."""
    _, kernel = run(by_temperature(said(GOOD)), suppress=listed)
    special = CODEC.special
    told = kernel.calls[0][0].search.suppress
    assert set(told) == {
        *listed, special.start, special.previous, special.transcribe, special.translate, special.no_speech
    }  # fmt: skip
    assert not {special.end, special.no_stamps, special.first_stamp} & set(told)


def test_fluent_russian_is_not_decoded_again() -> None:
    prose = (
        "утром когда над рекой ещё стоял туман мы вышли из дома и отправились к старой мельнице дорога шла через поле "
        "потом вдоль опушки где пахло грибами и мокрой хвоей дед рассказывал как строили плотину кто возил камень "
        "почему однажды весной её прорвало и что случилось с мостом я слушал и думал что надо бы записать эти истории"
    )
    _, kernel = run(by_temperature(said(prose)))
    assert temperatures(kernel) == [0.0]


def test_no_speech_and_a_doubtful_text_are_silence() -> None:
    [found], kernel = run(by_temperature(said(GOOD, mean=-1.5, no_speech=0.7)))
    assert found.silent
    assert temperatures(kernel) == [0.0]


@pytest.mark.parametrize(("mean", "no_speech"), [(-0.5, 0.9), (-1.5, 0.5)])
def test_one_of_the_two_is_not_enough_for_silence(mean: float, no_speech: float) -> None:
    [found], _ = run(by_temperature(said(GOOD, mean=mean, no_speech=no_speech)))
    assert not found.silent


def test_if_all_fail_the_likeliest_that_does_not_repeat_itself() -> None:
    answers = [said(LOOP, mean=-0.1), said(GOOD, mean=-1.8), said("другой текст", mean=-1.4), said(LOOP, mean=-0.2)]
    [found], kernel = run(by_temperature(*answers))
    assert (found.text.strip(), found.temperature, found.failed) == ("другой текст", 0.4, True)
    assert temperatures(kernel) == list(TEMPERATURES)
    assert found.figures()["doubts"] == ["logprob"]


def test_if_all_repeat_themselves_the_likeliest() -> None:
    [found], _ = run(by_temperature(said(LOOP, mean=-0.5), said(LOOP, mean=-0.2), said(LOOP, mean=-0.9)))
    assert (found.temperature, found.failed) == (0.2, True)


def test_an_echo_of_the_prompt_is_asked_again_without_it() -> None:
    prompt = "речка распознавание иваново"

    def script(ask: Ask) -> Generated:
        return said(prompt if CODEC.special.previous in ask.prompt else GOOD)

    [found], kernel = run(script, task(given=prompt))
    assert (found.text.strip(), found.bare, found.temperature) == (GOOD, True, 0.0)
    assert temperatures(kernel) == [0.0, 0.0]


def test_what_is_said_without_the_prompt_too_was_said() -> None:
    prompt = "речка распознавание иваново"
    [found], kernel = run(lambda ask: said(prompt), task(given=prompt))
    assert (found.text.strip(), found.bare, found.failed) == (prompt, True, False)
    assert len(kernel.calls) == 2


def test_translation_may_be_in_another_alphabet() -> None:
    [found], _ = run(by_temperature(said("thank you very much for coming")), task="translate")
    assert found.reasons == ()


def test_live_a_text_is_tried_once() -> None:
    [found], kernel = run(by_temperature(said(LOOP)), task(once=True))
    assert found.failed
    assert [(call[0].search.temperature, call[0].search.beam_size) for call in kernel.calls] == [(0.0, 1)]


def test_the_limit_of_tokens_is_told() -> None:
    [found], _ = run(by_temperature(said(GOOD, truncated=True)))
    assert found.truncated
    assert found.figures()["truncated"] is True


def test_figures_for_tuning() -> None:
    [found], _ = run(by_temperature(said(GOOD)))
    assert set(found.figures()) == {"temperature", "avg_logprob", "no_speech_prob", "compression_ratio"}


def window_script(ask: Ask) -> Generated:
    """Window n: good at its own temperature; before that a loop, a doubt, a slip, by turns."""
    number = int(ask.audio[0])
    step = TEMPERATURES.index(ask.search.temperature)
    if number == 9:
        return said(GOOD, mean=-2.0, no_speech=0.9)
    if step >= number % 7:
        return said(f"{GOOD} номер {number}")
    return [said(LOOP), said(GOOD, mean=-2.0), said("no this is not it at all")][(number + step) % 3]


def test_only_those_that_need_it_are_tried_again_and_they_share_calls() -> None:
    found, kernel = run(window_script, *(task(n) for n in range(8)), batch_size=8)
    assert [one.temperature for one in found][:6] == list(TEMPERATURES)
    assert len(kernel.calls[0]) == 8
    assert sum(map(len, kernel.calls)) < 8 * 6
    for one, number in zip(found[:6], range(6), strict=False):
        assert one.text.strip() == f"{GOOD} номер {number}"


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=9, max_size=9),
)
def test_a_batch_gives_what_each_window_gives_alone(
    numbers: list[int], size: int, kinds: Sequence[tuple[bool, bool]]
) -> None:
    tasks = [
        task(number, given=GOOD if prompted else "", stamps=stamps)
        for number, (prompted, stamps) in zip(numbers, kinds, strict=False)
    ]
    together, kernel = run(window_script, *tasks, batch_size=size)
    alone = [run(window_script, one)[0][0] for one in tasks]
    assert together == alone
    for call in kernel.calls:
        assert len(call) <= size
        assert len({ask.search for ask in call}) == 1
        assert len({CODEC.special.no_stamps in ask.prompt for ask in call}) == 1
        assert len({ask.prompt.index(CODEC.special.start) for ask in call}) == 1


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(["compression", "loop", "logprob", "language"])), st.floats(-5, 0)),
        min_size=1,
        max_size=6,
    )
)
def test_the_choice_is_the_last_good_one_or_the_calmest(items: list[tuple[set[str], float]]) -> None:
    attempts = [
        Attempt((), "", temperature, mean, 0.0, 1.0, reasons=tuple(sorted(reasons)))
        for temperature, (reasons, mean) in zip(itertools.count(), items, strict=False)
    ]
    chosen = choose(attempts)
    if not attempts[-1].reasons:
        assert chosen == attempts[-1]
        return
    calm = [one for one in attempts if not {"compression", "loop"} & set(one.reasons)]
    assert chosen.failed
    assert chosen.logprob == max(one.logprob for one in calm or attempts)


def test_windows_share_calls_only_with_prompts_of_the_same_shape() -> None:
    prompts = [Prompt((1,) * n, HEAD, stamps=s) for n in (0, 2) for s in (False, True)] * 2
    kernel = ScriptedKernel(lambda ask: said("да"))
    decode(kernel, CODEC, [Task(np.zeros(1600, np.float32), prompt) for prompt in prompts], WhisperOptions())
    assert sorted(len(call) for call in kernel.calls) == [2, 2, 2, 2]
    for call in kernel.calls:
        assert len({ask.prompt.index(CODEC.special.start) for ask in call}) == 1
        assert len({CODEC.special.no_stamps in ask.prompt for ask in call}) == 1
