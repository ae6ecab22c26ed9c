"""Pages made of records, and nothing else: a test compares the committed pages with what their JSON gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plot
from record import Record, Row, table

TITLES = {
    "file": "T-one, full size: a recording",
    "sherpa": "sherpa-onnx: the same files in both",
    "whisper": "Whisper, shape of tiny",
    "beam": "CTC beam search",
}
"""Parts in the order of the pages."""

HEAD = """# Benchmarks

Made by `python benchmarks/suite.py --write docs/benchmarks.md` from the figures in `docs/benchmarks/*.json`, which
hold the seconds of every round; not edited by hand.

rechka and other programs side by side: the same files, the same audio, one thread each, in turns within one run.
The clock is the CPU time of the process, from samples to text (log-probabilities for T-one's recordings, text from
log-probabilities for the beam search). A ratio is the other program's time divided by ours in the same round:
**above 1 rechka is faster**. The table has the smallest, the median and the largest; *faster* and **slower** are
said where three rounds of four agree, *even* where they do not. Losses stand in bold.

![CPU time of the other program divided by that of rechka](benchmarks/ratios.svg)
"""

WHAT = """
## What is compared

All weights are random, in layouts that are published: no published weights were at hand. They cost what real ones
cost where the work does not depend on the text; where it does (Whisper, searches), the result column says whether
both wrote the same.

- **T-one, a recording** (`benchmarks/file_mode.py`): full size, chunks of 0.3 s with the state handed on, against
  ONNX Runtime as its documentation shows it and sherpa-onnx. *Same file* is the published form, which takes one
  chunk a run; *blocks* are our export of the same weights, twenty chunks a run. *Drift* from torch in float32:
  largest difference of a log-probability / KL in nats a frame / frames with the same best token. Random weights
  make flat distributions, in which the best token changes easily: the figures compare variants, they say nothing of
  error rates. What 8 bits cost in words, and the way through OpenVINO: [Speed](speed.md).
- **sherpa-onnx** (`benchmarks/parity_sherpa.py`): zipformers of the size of Vosk's, GigaAM, T-one. [Are the texts
  equal?](parity.md)
- **Whisper** (`benchmarks/whisper_parity.py`): faster-whisper and rechka run the same CTranslate2, so what differs
  is all around it; transformers runs torch. [Where texts are equal, and why not](whisper_parity.md)
- **CTC beam search** (`benchmarks/beam_search.py`): synthetic log-probabilities, a bigram of 30 words, the same
  width. *Score* is that of the text found, computed apart from both: higher is a better search. Where one clear
  token a frame and a word list leave next to nothing to search, array operations cost more than a few Python
  tuples: there pyctcdecode wins, at less than 1 % of real time. [What differs in the
  search](decoding.md#beside-pyctcdecode)

Live streams of a whole server are measured by [`rechka bench serve`](load.md), T-one's blocks on a CPU with the
share of what the machine could do by [`rechka bench cpu`](speed.md); how many calls that makes:
[Capacity](capacity.md).

## What is not compared

- **vosk**: its Python package runs Kaldi's older models only, none of which is at hand or can be made of random
  weights by our tools. Vosk's newer models are zipformers, which run in sherpa-onnx: those rows are the comparison.
- **A GPU**: none was at hand; nothing on this page was measured on one.
- **Error rates** against other models: other weights would be needed. Those of the embedded model stand in the
  README.
"""

AGAIN = """
## Again

<!-- skip: it measures for a quarter of an hour -->
```console
$ make bench                                            # sets up .venv and .venv-bench, all parts, writes the pages
$ python benchmarks/suite.py beam --theirs beam=PYTHON  # one part; PYTHON has pyctcdecode
$ python benchmarks/suite.py --pages --write docs/benchmarks.md   # the pages from the figures that are there
```

A part whose other program is not installed is left out with the reason, which then stands on this page.
"""


def benchmarks(records: Mapping[str, Record]) -> str:
    """docs/benchmarks.md."""
    rows = [row for part in TITLES if part in records for row in records[part].rows]
    lost = [f"**{count(rows, kind)}** {kind.strip('*')}" for kind in ("faster", "even", "**slower**")]
    lines = [HEAD, f"Of {len(rows)} comparisons: {', '.join(lost)}.", "", *table(rows), WHAT.rstrip()]
    for part in TITLES:
        reasons = records[part].skipped if part in records else {"all": "this part was not run"}
        lines += [f"- **{peer}** in the part `{part}`: {why}" for peer, why in reasons.items()]
    lines += [
        "",
        "## Machine and versions",
        "",
        "| part | day | rounds | machine | versions |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {part} | {_where(records[part])} |" for part in TITLES if part in records]
    return "\n".join(lines) + "\n" + AGAIN


def count(rows: list[Row], kind: str) -> int:
    """Rows with a verdict; all that are even together."""
    return sum("even" in row.verdict if kind == "even" else row.verdict == kind for row in rows)


def _where(record: Record) -> str:
    """Day, rounds, machine and versions as cells."""
    m = record.machine
    place = f"{m['processor']}, {m['cores']} cores{', ' * bool(m['vectors'])}{m['vectors']}, {m['memory_gb']} GB"
    versions = ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
    begun = f"load {m['load_before']:g} at the beginning"
    return f"{record.day} | {record.rounds} | {place}, {m['system']}, {begun} | {versions}"


def picture(records: Mapping[str, Record]) -> str:
    """docs/benchmarks/ratios.svg."""
    return plot.ratios([(title, records[part].rows) for part, title in TITLES.items() if part in records])


PARITY = """# Side by side with sherpa-onnx

Made by `make bench` (`benchmarks/parity_sherpa.py`); not edited by hand.

The same files, the same audio, greedy or modified beam search. Weights are random, in the layouts that are
published: the text is noise, equal if and only if every token is. What it costs in both:
[Benchmarks](benchmarks.md).

sherpa-onnx gives GigaAM features that are not GigaAM's: its offline streams keep Kaldi's pre-emphasis and transform
of 512 points, although its recogniser switches both off (`offline-stream.cc` at 634265c copies neither; a graph
that hands its input through shows the same in 2.0.1). On the golden recording `b.wav` the log-mel energies differ
by 1.9 on average, by 0.5 once each band's mean difference is taken off. So its texts are compared with ours on its
features too.

sherpa-onnx {theirs}, ONNX Runtime {ours} in rechka.

| model | text |
|---|---|
"""


def parity(record: Record) -> str:
    """docs/parity.md."""
    head = PARITY.format(theirs=record.versions["sherpa-onnx"], ours=record.versions["onnxruntime"])
    return head + "".join(f"| {row.what} | {row.detail} |\n" for row in record.rows)


WHISPER = """# Whisper side by side with faster-whisper and transformers

Made by `make bench` (`benchmarks/whisper_parity.py`); not edited by hand.

Random weights in the shape of tiny, language given, one temperature, no text before as a prompt, one thread. rechka
and faster-whisper {faster-whisper} run CTranslate2 {ctranslate2} on the same folder in float32; transformers
{transformers} runs the checkpoint that it was made of on torch {torch}. What it costs: [Benchmarks](benchmarks.md).

The weights know no speech: equal text means that features, prompts, rules and search are the same, and says nothing
of error rates.

## Equal text, {windows} windows of 30 s

| what | compared | faster-whisper | transformers |
|---|---|---|---|
"""
WHISPER_DIFFERENCES = """
Where texts differ, and why:

- **Rounding.** The three compute spectrograms and layers in different orders of additions; random weights are sure
  of nothing, so that a difference in the sixth digit can change a token, and all that follow it.
- **The limit of 224 tokens.** rechka divides a window whose text does not end ({divided} of {windows} here), the
  others go on behind it.
- **What windows hear.** rechka computes the spectrogram of every window from its own samples and fills a rest with
  silence, as transformers does for a recording of less than 30 s. The others cut windows out of the spectrogram of
  the whole recording, so that they hear their neighbours, and fill a rest with zeros, which is the level of noise.
  So what comes after the first cut between two stamps is decoded from other numbers, in another number of windows,
  and the CPU time with stamps is that of different work. faster-whisper also takes the floor from the loudest
  moment of the whole recording. (Here windows of 30 s begin and end with silence, so that without stamps all hear
  the same.)
- **Stamps behind the end of the audio** are moved to the end here, and left there.
- **Beams of 5.** CTranslate2 and transformers end a beam search by different rules.
- **Word times** are not compared: the attention of random weights points nowhere. Both take CTranslate2's path
  through it; beside pauses words are cut by other rules. faster-whisper leaves out a segment whose words take no
  time, and goes on behind the last word of a window, even without stamps, so that it decodes more windows.
- **Not compared, since it is meant to differ**: when a window is tried again (rechka measures repetition in
  characters, not in bytes, and looks for loops, echoes and other alphabets), guards in batches (faster-whisper's
  batched pipeline has none), what is dropped as made up, prompts (text here; text and stamps there; an initial
  prompt stays behind a reset here), phrases and packing (Silero's detector in both, other limits).
  `docs/whisper.md` tells what rechka does.
"""


def whisper(record: Record) -> str:
    """docs/whisper_parity.md."""
    more: dict[str, Any] = record.more
    lines = []
    for what, compared, found in more["equal"]:
        cells = (f"{found[name]} of {more['windows']}" for name in ("faster-whisper", "transformers"))
        lines.append(f"| {what} | {compared} | {' | '.join(cells)} |\n")
    peaks = more["memory_mb"]
    return (
        WHISPER.format_map({**record.versions, "windows": more["windows"]})
        + "".join(lines)
        + WHISPER_DIFFERENCES.format_map(more)
        + f"\n## Memory\n\nThe features of {peaks['hours']:g} h, on top of the samples: rechka {peaks['rechka']} MB, "
        f"faster-whisper {peaks['faster-whisper']} MB.\n"
    )
