"""The punctuator that goes by the words: what it writes, what it leaves alone, and that it needs its own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rechka.cli.listen import event_dict
from rechka.errors import BadModelFile, ModelNotFound
from rechka.models import punctuator as module
from rechka.models.punctuator import EMBEDDED_FILE, WordPunctuator, embedded
from rechka.recognizers.finish import finish, live_punctuator
from rechka.segmentation.vad import SILERO_FILE
from rechka.text.punctuation import LivePunctuator, PausePunctuator, is_bare, pause_classes
from rechka.text.word_hashes import folded, hashes
from rechka.types import Final, Refined, Segment, SpeechStart, Transcript, Word


def spoken(text: str, pauses: dict[int, float] | None = None) -> tuple[Word, ...]:
    words, at = [], 0.0
    for place, word in enumerate(text.split()):
        words.append(Word(word, at, at + 0.3, 0.9))
        at += 0.35 + (pauses or {}).get(place, 0.0)
    return tuple(words)


def text_of(words: tuple[Word, ...]) -> str:
    return " ".join(word.text for word in words)


def phrase(text: str, start: float = 0.0, channel: int = 0) -> Segment:
    words = tuple(Word(w.text, w.start + start, w.end + start, w.confidence) for w in spoken(text))
    return Segment(text, start, words[-1].end if words else start, words, None, channel)


@pytest.mark.parametrize(
    "written",
    [
        "Здравствуйте, чем я могу помочь?",
        "Как вас зовут?",
        "Я не знаю, когда он приедет.",
        "Это человек, который живет в Москве.",
        "Если вы не знаете номер, нажмите решетку.",
        "Ваш долг 120 рублей.",
    ],
)
def test_plain_sentences(written: str) -> None:
    bare = " ".join(folded(word) if word != "120" else word for word in written.split())
    bare = bare.replace(" 0 ", " 120 ")
    assert text_of(embedded()(spoken(bare))) == written


def test_a_pause_helps_to_end_a_sentence() -> None:
    assert text_of(embedded()(spoken("введите номер оператора нажмите решетку", {2: 0.9}))) == (
        "Введите номер оператора. Нажмите решетку."
    )


def test_long_texts_are_cut_into_windows_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    words = spoken("я не знаю когда он приедет скажите пожалуйста как вас зовут " * 12)
    whole = embedded()(words)
    monkeypatch.setattr(module, "WINDOW", 17)
    assert embedded()(words) == whole


def test_a_model_that_writes_marks_is_left_alone() -> None:
    own = Transcript((phrase("Да, слышу"), phrase("хорошо", 5.0)), "ru", "m", 9.0)
    assert finish(own, punctuate=True) == own
    bare = Transcript((phrase("да слышу"),), "ru", "m", 9.0)
    assert finish(bare, punctuate=True).text[0] == "Д"
    for text in ("я думаю что", "мы живем в россии а они в америке", "потому"):  # a text that is over ends
        assert finish(Transcript((phrase(text),), "ru", "m", 9.0), punctuate=True).text.endswith((".", "?", "!", "…"))
    assert finish(bare, punctuate=True, punctuator=PausePunctuator()).text == "Да слышу."
    assert finish(bare) == bare
    assert is_bare(spoken("кто-то 5% 12:30"))
    assert not is_bare(spoken("да,"))


def test_live_phrases_go_on_from_what_was_shown() -> None:
    live = LivePunctuator(PausePunctuator(0.7))
    first = live(Final(phrase("да", 0.0)))
    assert first.segment.text == "Да."
    assert live(Final(phrase("хорошо", 0.4))).segment.text == "Хорошо."  # the full stop was shown, whatever the pause
    assert live(Final(phrase("алло", 0.5, channel=1))).segment.text == "Алло."
    assert live(Refined(phrase("хорошо спасибо", 0.4))).segment.text == "Хорошо спасибо."
    assert live(SpeechStart(3.0)) == SpeechStart(3.0)
    assert live(Final(phrase("Сам пишу,", 2.0))).segment.text == "Сам пишу,"
    assert event_dict(live(Final(Segment("", 1.0, 1.5))))["text"] == ""


def test_live_punctuation_is_that_of_the_embedded_one() -> None:
    assert live_punctuator()(Final(phrase("как вас зовут"))).segment.text == "Как вас зовут?"


def test_words_may_be_none() -> None:
    assert embedded()(()) == ()
    assert hashes([])[1].shape == (0, 8)
    assert pause_classes(()).shape == (0,)


def test_pauses_have_classes() -> None:
    words = (Word("а", 0, 1), Word("б", 1.0, 2), Word("в", 2.3, 3), Word("г", 9, 10))
    assert pause_classes(words).tolist() == [1, 3, 6, 0]
    assert pause_classes([Word("а", 0, 0), Word("б", 0, 0)]).tolist() == [0, 0]


def test_other_files_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    with pytest.raises(ModelNotFound):
        WordPunctuator.load(tmp_path / "none.onnx")
    with pytest.raises(BadModelFile, match="no punctuator"):
        WordPunctuator.load(SILERO_FILE)
    content = EMBEDDED_FILE.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadModelFile):
        WordPunctuator.load(tmp_path / "cut.onnx")
    (tmp_path / "other.onnx").write_bytes(content.replace(b'["", ",", "."', b'["", ".", ","'))
    with pytest.raises(BadModelFile, match="other marks"):
        WordPunctuator.load(tmp_path / "other.onnx")
    graph = onnx.load(EMBEDDED_FILE)
    next(entry for entry in graph.metadata_props if entry.key == "marks").value = "[" * 100_000
    onnx.save(graph, tmp_path / "deep.onnx")
    with pytest.raises(BadModelFile, match="no punctuator"):
        WordPunctuator.load(tmp_path / "deep.onnx")


def test_the_file_is_small() -> None:
    assert EMBEDDED_FILE.stat().st_size < 3_000_000
