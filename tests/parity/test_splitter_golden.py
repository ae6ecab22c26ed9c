"""The segmenter against T-one's splitter: same phrases, same decoder frames, same moment of emission, same times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rechka.segmentation import BlankEvidence, Close, Cut, Feed, FrameOptions, Open, Segmenter
from rechka.testing import ScriptedDecoder
from rechka.timeline import Timeline
from rechka.types import LogProbs, Tokens

DATA = Path(__file__).parents[1] / "data" / "splitter"
TOKENS = Tokens((*"абвгдеёжзийклмнопрстуфхцчшщъыьэюя", " ", ""), blank=34)
TIMELINE = Timeline(8000, 240, 2400, 2640)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads((DATA / "phrases.json").read_text(encoding="utf-8"))


def cut(chunk: int) -> list[dict[str, Any]]:
    values = np.load(DATA.parent / "tone" / "splitter_logprobs.npz")["logprobs"]
    segmenter, decoder, evidence = Segmenter(FrameOptions()), ScriptedDecoder(TOKENS.blank), BlankEvidence(TOKENS)
    state = segmenter.initial_state()
    phrases: list[dict[str, Any]] = []
    beam, fed, mark, marked = decoder.begin(), 0, decoder.begin(), 0
    for first in range(0, len(values), chunk):
        actions, state = segmenter.step(state, evidence(LogProbs(values[first : first + chunk], first)))
        if first + chunk >= len(values):
            last, state = segmenter.flush(state)
            actions += last
        for action in actions:
            if isinstance(action, Open):
                beam, fed = decoder.begin(), 0
            elif isinstance(action, Feed):
                [beam] = decoder.advance([beam], [LogProbs(values[action.start : action.end], action.start)])
                fed += action.end - action.start
            elif isinstance(action, (Close, Cut)):
                end, num = (beam, fed) if isinstance(action, Close) else (mark, marked)
                phrases.append(
                    {
                        "chunk": first // chunk,
                        "start_frame": action.start,
                        "end_frame": action.end,
                        "n_logprobs": num,
                        "greedy": TOKENS.text(decoder.best(end).tokens).strip(),
                        "start_time": round(TIMELINE.seconds(action.start), 2),
                        "end_time": round(TIMELINE.seconds(action.end), 2),
                    }
                )
            else:
                mark, marked = beam, fed
    return phrases


def test_phrases_that_are_not_cut_are_the_reference_s(golden: dict[str, Any]) -> None:
    whole = [phrase for phrase in golden["phrases"] if phrase["n_logprobs"] < 2000][:4]
    assert len(whole) == 4
    assert cut(golden["chunk_frames"])[:4] == whole


def test_a_cut_loses_no_letter_and_doubles_none(golden: dict[str, Any]) -> None:
    first, second = golden["phrases"][4:]
    mine = cut(golden["chunk_frames"])[4:]
    assert len(mine) == 2
    assert (mine[0]["start_frame"], mine[-1]["end_frame"]) == (first["start_frame"], second["end_frame"])
    assert mine[0]["end_frame"] - mine[0]["start_frame"] <= 2000
    assert sum(phrase["n_logprobs"] for phrase in mine) == second["end_frame"] - first["start_frame"] + 6
    # The reference decodes six frames around its cut twice; without them the texts must be the same.
    values = np.load(DATA.parent / "tone" / "splitter_logprobs.npz")["logprobs"]
    decoder = ScriptedDecoder(TOKENS.blank)
    span = LogProbs(values[first["start_frame"] - 3 : second["end_frame"] + 3])
    [whole] = decoder.advance([decoder.begin()], [span])
    joined = "".join(phrase["greedy"] for phrase in mine)
    assert joined.replace(" ", "") == TOKENS.text(decoder.best(whole).tokens).replace(" ", "")


@pytest.mark.parametrize("chunk", [1, 7, 333, 2650])
def test_the_chunk_does_not_matter(chunk: int, golden: dict[str, Any]) -> None:
    strip = [{k: v for k, v in phrase.items() if k != "chunk"} for phrase in cut(chunk)]
    assert strip == [{k: v for k, v in phrase.items() if k != "chunk"} for phrase in cut(golden["chunk_frames"])]
