"""What will be said, by whom, and how: everything random about a run, decided before it starts."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rechka.errors import UsageError
from rechka.text.normalize import scoring
from rechka.train.synth.voices import Voice
from rechka.train.text import held_out, read_sentences, unique, usable

Range = tuple[float, float]

_SPEAKERS_A_VOICE = 60
_SLOWEST, _FASTEST = 0.7, 1.55
"""Range of an engine's own rate. Outside, durations of RHVoice no longer follow."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Ranges that utterances are drawn from.

    Attributes:
        seed: the same seed, texts, and voices give the same plan.
        hours, limit: where to stop: estimated hours of audio, or a number of utterances; whichever is reached first.
        tempo: speed of speech, 1 being the voice's own.
        pitch: factor of the fundamental frequency that the engine is asked for.
        factor: resampling factor; formants and pitch are multiplied by it, the tempo is compensated.
        volume: peak amplitude of the utterance, full scale being 1.
        silence: seconds of silence, before and after, each.
        join: share of utterances that are two sentences with a pause.
        pause: seconds of that pause.
        held_out: take only sentences that are reserved for tests, instead of only the others.
    """

    seed: int = 0
    hours: float | None = None
    limit: int | None = None
    tempo: Range = (0.8, 1.35)
    pitch: Range = (0.85, 1.2)
    factor: Range = (0.85, 1.18)
    volume: Range = (0.2, 0.9)
    silence: Range = (0.05, 0.5)
    join: float = 0.15
    pause: Range = (0.2, 1.2)
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording to make.

    Attributes:
        id: seed and number in the plan, unique also among runs of different seeds.
        sentences: as written, one or two.
        speaker: voice and number of the pseudo-speaker.
        tempo: of the result; the engine's rate is ``tempo / factor``.
        pitch: factor asked of the engine; the result's is ``pitch * factor``.
        factor: resampling factor, see :class:`PlanOptions`.
        volume: peak amplitude.
        lead, pause, trail: seconds of silence before, between and after.
        source: name of the text file.
    """

    id: str
    sentences: tuple[str, ...]
    voice: str
    speaker: str
    tempo: float
    pitch: float
    factor: float
    volume: float
    lead: float
    pause: float
    trail: float
    source: str

    @property
    def text(self) -> str:
        """The target: lower case, ё as spelled, letters and single spaces."""
        return " ".join(map(spelled, self.sentences))

    @property
    def path(self) -> str:
        """Where the audio goes, relative to the run's folder: a thousand files to a folder."""
        return f"audio/{int(self.id.rpartition('-')[2]) // 1000:03d}/{self.id}.flac"


def spelled(text: str) -> str:
    """:func:`rechka.text.normalize.scoring`, but ё stays as it was written."""
    lowered = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    kept = (x if x.isalnum() else "" if unicodedata.category(x) in ("Mn", "Me", "Cf") else " " for x in lowered)
    return " ".join("".join(kept).split())


def parse_source(argument: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:WEIGHT`` as path and weight.

    Raises:
        UsageError: the weight is not a positive number.
    """
    name, colon, weight = argument.rpartition(":")
    if not colon or Path(argument).exists():
        return Path(argument), 1.0
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise UsageError(f"expected FILE or FILE:WEIGHT with a positive weight, got {argument!r}")
    return Path(name), value


def _sentences(path: Path, options: PlanOptions, exclude: Collection[str]) -> Iterator[str]:
    lines = list(read_sentences(path))
    random.Random(f"{options.seed} {path.name}").shuffle(lines)
    for sentence in unique(lines):
        # One word is enough: a grammar asks for «да» and «нет».
        if (
            usable(sentence, min_words=1)
            and held_out(sentence) is options.held_out
            and scoring(sentence) not in exclude
        ):
            yield sentence


def _pseudo_speaker(voice: Voice, number: int, options: PlanOptions) -> tuple[float, float]:
    """Pitch and factor of a pseudo-speaker: a function of voice and number, the same in all runs with these ranges."""
    rng = random.Random(f"{voice.name} {number}")
    return rng.uniform(*options.pitch), rng.uniform(*options.factor)


def _utterance(number: int, sentences: tuple[str, ...], source: str, voice: Voice, options: PlanOptions) -> Utterance:
    rng = random.Random(f"{options.seed} {number}")
    speaker = rng.randrange(_SPEAKERS_A_VOICE)
    pitch, factor = _pseudo_speaker(voice, speaker, options)
    low, high = options.pitch
    pitch = min(max(pitch * rng.uniform(0.97, 1.03), low), high)
    tempo = min(max(rng.uniform(*options.tempo), _SLOWEST * factor), _FASTEST * factor)
    return Utterance(
        id=f"{options.seed}-{number:06d}",
        sentences=sentences,
        voice=voice.name,
        speaker=f"{voice.name}-{speaker:02d}",
        tempo=round(tempo, 3),
        pitch=round(pitch, 3),
        factor=round(factor, 3),
        volume=round(rng.uniform(*options.volume), 3),
        lead=round(rng.uniform(*options.silence), 3),
        pause=round(rng.uniform(*options.pause), 3) if len(sentences) > 1 else 0.0,
        trail=round(rng.uniform(*options.silence), 3),
        source=source,
    )


def estimated_seconds(utterance: Utterance, voice: Voice) -> float:
    """How long the utterance will be, from its letters and the pace of its voice."""
    speech = len(utterance.text) / voice.pace / utterance.tempo
    return speech + utterance.lead + utterance.pause + utterance.trail


def make_plan(
    sources: Sequence[tuple[Path, float]],
    voices: Sequence[Voice],
    options: PlanOptions,
    *,
    exclude: Iterable[str] = (),
) -> list[Utterance]:
    """Everything a run will say. No sentence is used twice, also not across files.

    Args:
        sources: text files with their shares of the (estimated) audio.
        voices: drawn by their weights.
        exclude: sentences that must not be said.
    Returns:
        Utterances until ``hours`` or ``limit``, or until the first text file runs out, so that the shares hold.
    Raises:
        UsageError: neither a limit nor hours, no texts, or no voices.
        DataError: a text file cannot be read.
    """
    if options.hours is None and options.limit is None:
        raise UsageError("expected how much to synthesise", remedy="give hours or limit (--hours or --limit)")
    if not sources or not voices:
        raise UsageError("expected at least one text file and one voice")
    for name in ("tempo", "pitch", "factor", "volume"):
        low, high = getattr(options, name)
        if not 0.2 <= low <= high <= 5:
            raise UsageError(f"expected two {name} values between 0.2 and 5, the lower first, got {low:g} and {high:g}")
    used = {scoring(sentence) for sentence in exclude}
    queues = [_sentences(path, options, used) for path, _ in sources]
    spent = [0.0] * len(sources)
    rng = random.Random(options.seed)
    weights = [voice.weight for voice in voices]
    plan: list[Utterance] = []
    most = float("inf") if options.limit is None else options.limit
    seconds = float("inf") if options.hours is None else options.hours * 3600
    while len(plan) < most and sum(spent) < seconds:
        which = min(range(len(sources)), key=lambda i: spent[i] / sources[i][1])
        sentences: list[str] = []
        for _ in range(2 if rng.random() < options.join else 1):
            if (sentence := next(queues[which], None)) is not None:
                used.add(scoring(sentence))
                sentences.append(sentence)
        if not sentences:
            break
        voice = rng.choices(voices, weights)[0]
        utterance = _utterance(len(plan), tuple(sentences), sources[which][0].name, voice, options)
        spent[which] += estimated_seconds(utterance, voice)
        plan.append(utterance)
    return plan
