"""Settings that users see, as frozen dataclasses with units in their names. A card may carry other defaults."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """How frames are cut into phrases.

    Attributes:
        silence_threshold: a frame is speech when its evidence is at least one minus this. T-one's splitter uses 0.9.
        min_silence_s: a pause this long ends a phrase. T-one: 20 frames of 30 ms.
        expand_s: context kept on both sides of a phrase. T-one: 3 frames.
        max_phrase_s: a longer phrase is cut at its best pause. T-one: 2000 frames.
        vad: what tells speech from silence before a model that reads whole phrases: ``"silero"`` or ``"energy"``.
            Models that read chunks tell it themselves. ``rechka.recognizers.blocks.PHRASED`` has the other values
            that such models start with.
    """

    silence_threshold: float = 0.9
    min_silence_s: float = 0.6
    expand_s: float = 0.09
    max_phrase_s: float = 60.0
    vad: str = "silero"


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """How log-probabilities are searched.

    Attributes:
        kind: ``"greedy"``, ``"beam"``, or ``"auto"``: beam where there is a language model or hotwords, else greedy.
        beam_width: hypotheses kept per frame.
        beam_prune_logp: hypotheses this far below the best are dropped.
        token_min_logp: tokens below this are not tried, except the best one of the frame.
        alpha: weight of the language model's natural-log probability.
        beta: bonus per word.
        unk_logp: added (natural log) for a word outside the word list.
        recombine: drop a hypothesis when a likelier one differs only in words that the language model looks at no more.
            Leaves room for others and makes beginnings stable sooner; n-best lists then differ in their last words.
        length_norm: rank whole hypotheses of a transducer by their score per token, as icefall's models expect.
        hotwords: word or phrase -> boost, in natural-log units for the whole entry.
    """

    kind: str = "beam"
    beam_width: int = 48
    beam_prune_logp: float = -10.0
    token_min_logp: float = -5.0
    alpha: float = 0.4
    beta: float = 0.9
    unk_logp: float = -10.0
    recombine: bool = True
    length_norm: bool = False
    hotwords: dict[str, float] = field(default_factory=dict)
