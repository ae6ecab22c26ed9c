"""CTC prefix beam search with a word language model, a word list and hotwords, incremental over frames.

Hannun et al. 2014 (arXiv:1408.2873): a hypothesis is a token sequence, its probability the sum over its alignments,
kept apart for those that end in blank. Language-model fusion, pruning and their constants follow pyctcdecode 0.5.0,
with which it shares scores; ``docs/decoding.md`` lists the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rechka.decoding.arena import (
    AFTER,
    BONUS,
    CONTEXT,
    DEPTH,
    FRAME,
    HASH,
    HOT,
    LAST,
    LM,
    LOUD,
    NUM_FLOATS,
    NUM_INTS,
    PARENT,
    PNB,
    RECORD,
    ROOT,
    TOT,
    TRIE,
    WORD,
    Arena,
    Floats,
    Ints,
    PrefixBeam,
    notable,
)
from rechka.decoding.frames import checked
from rechka.decoding.hotwords import compile_hotwords
from rechka.decoding.lexicon import LetterTrie, Lexicon
from rechka.decoding.lm import LanguageModel
from rechka.decoding.posterior import Detour, token_posteriors
from rechka.decoding.search import Search
from rechka.errors import IncompatibleParts, UsageError
from rechka.options import DecoderOptions
from rechka.types import Frames, Hypothesis, LogProbs, Tokens

_NONE: Ints = np.empty(0, np.int64)
_BEGUN = 0.75
"""Part of ``unk_logp`` that a begun word which cannot become a listed one pays in advance. pyctcdecode takes all of it;
less finds better scores on noisy log-probs (benchmarks/beam_search.py), because wrong letters are corrected by search,
not by a lead that is lost at once."""
_OUTLOOK = 0.5
"""Part of a word's own log-probability that is expected while it is being spelled. Half of it lets a beam a third as
wide find the same scores (150 k words, simulated confusions); all of it prunes what the words before make likely."""
_RIVALS = 24
"""Live hypotheses that are compared with the best one for its posteriors."""
_MAX_TRIE = 1 << 16
"""Letter states kept between phrases; with 35 tokens about 300 bytes each."""


class CtcBeam:
    """A ``protocols.Decoder``. Thread-safe; beams are values and may be advanced more than once.

    Tokens have no space at their ends and no two in a row.

    Args:
        tokens: the model's vocabulary; needs a space for a language model.
        options: widths, weights and hotwords.
        lm: scores words. Its word list, where it tells one, guides the search while a word is being spelled.
        lexicon: a word list to use instead of the language model's.
    Raises:
        UsageError: an option out of range, or a hotword that cannot be spelled.
        IncompatibleParts: a language model for a vocabulary without a space.
    """

    consumes: type[Frames] = LogProbs

    def __init__(
        self,
        tokens: Tokens,
        options: DecoderOptions | None = None,
        *,
        lm: LanguageModel | None = None,
        lexicon: Lexicon | None = None,
    ) -> None:
        self.tokens = tokens
        self.options = options or DecoderOptions()
        _check(self.options)
        if lm is not None and tokens.space is None:
            raise IncompatibleParts(
                "a language model scores words, and this vocabulary has no space between words",
                remedy="decode without a language model",
            )
        self.lm = lm
        self.hotwords = compile_hotwords(self.options.hotwords, tokens)
        self.space = -2 if tokens.space is None else tokens.space
        words = lexicon if lexicon is not None or lm is None else lm.words
        self._lexicons = [words] if words is not None and lm is not None else []
        if self._lexicons and self.hotwords is not None:
            self._lexicons.append(Lexicon(self.hotwords.words))
        self._trie = self._new_trie()

    def _new_trie(self) -> LetterTrie:
        options = self.options
        unlisted = 0.0 if self.lm is None else _BEGUN * options.unk_logp
        return LetterTrie(self.tokens, self._lexicons, unlisted, _OUTLOOK * options.alpha)

    def begin(self) -> PrefixBeam:
        """The empty hypothesis."""
        if len(self._trie) > _MAX_TRIE:
            self._trie = self._new_trie()  # phrases under way keep the old one
        floats = np.zeros((NUM_FLOATS, 1))
        floats[PNB] = -np.inf
        floats[WORD] = np.nan if self.lm is not None else 0.0
        ints = np.zeros((NUM_INTS, 1), np.int64)
        ints[HASH] = ROOT
        ints[LAST] = self.space if self.space >= 0 else self.tokens.blank  # nothing can repeat it
        ints[RECORD] = -1
        ints[AFTER] = -1
        if self.hotwords is not None:
            ints[HOT] = self.hotwords.start
            floats[BONUS] = self.hotwords.credit[self.hotwords.start]
        arena = Arena(self._trie, [None if self.lm is None else self.lm.start()])
        return PrefixBeam(arena, floats, ints, _NONE, _NONE)

    def advance(self, beams: Sequence[PrefixBeam], frames: Sequence[Frames], /) -> list[PrefixBeam]:
        """Each beam moved on over its own frames.

        Raises:
            IncompatibleParts: frames that are not log-probs over the vocabulary.
        """
        return [self._advance(beam, piece) for beam, piece in zip(beams, frames, strict=True)]

    def _advance(self, beam: PrefixBeam, piece: Frames) -> PrefixBeam:
        values = checked(piece, self.tokens)
        if not len(values):
            return beam
        tried = values >= self.options.token_min_logp
        tried[np.arange(len(values)), values.argmax(axis=1)] = True
        blank = self.tokens.blank
        rows = np.where(tried, values, -np.inf)
        silent = (tried[:, blank] & (tried.sum(axis=1) == 1)).tolist()
        with beam.arena.lock:
            search = Search(beam, self)
            for index, row in enumerate(rows):
                if silent[index]:
                    search.rest(row[blank])
                else:
                    search.step(piece.start + index, row)
            return search.value()

    def best(self, beam: PrefixBeam, /) -> Hypothesis:
        """The best hypothesis if the phrase ended here, with posteriors."""
        with beam.arena.lock:
            found = self._ranked(beam, _RIVALS)
            return replace(self._hypothesis(beam, *found[0]), posteriors=self._posteriors(beam, found))

    def nbest(self, beam: PrefixBeam, n: int, /) -> list[Hypothesis]:
        """Up to ``n`` hypotheses, best first, if the phrase ended here: words and sentence are ended and scored."""
        with beam.arena.lock:
            return [self._hypothesis(beam, *item) for item in self._ranked(beam, n)]

    def _ranked(self, beam: PrefixBeam, n: int) -> list[tuple[float, int]]:
        """Score and column of the ``n`` best, best first."""
        floats, ints = beam.floats, beam.ints
        spaced = ints[LAST] == self.space  # the empty hypothesis too: no word has begun
        ends = np.where(spaced & (ints[DEPTH] > 0), ints[PARENT], ints[HASH])
        _, first, group = np.unique(ends, return_index=True, return_inverse=True)
        total = np.full(len(first), -np.inf)
        np.logaddexp.at(total, group, floats[TOT])
        # Of two that differ in a space at the end, the likelier gives the alignment.
        order = np.lexsort((-floats[TOT], group))
        chosen = order[np.searchsorted(group[order], np.arange(len(first)))]
        score = total + floats[LM, chosen]
        if self.hotwords is not None and self.space >= 0:
            score += np.where(spaced, 0.0, self.hotwords.earned[ints[HOT], self.space])[chosen]
        bound = score + np.where(spaced, 0.0, self.word_bound(beam))[chosen]
        found: list[tuple[float, int]] = []
        for at in np.argsort(-bound, kind="stable").tolist():
            if len(found) >= n and bound[at] <= found[n - 1][0]:
                break
            column = int(chosen[at])
            exact = float(score[at]) + self._ending(beam, column, bool(spaced[column]))
            found.append((exact, column))
            found.sort(key=lambda item: -item[0])
        return found[:n]

    def _posteriors(self, beam: PrefixBeam, ranked: list[tuple[float, int]]) -> tuple[float, ...]:
        """Posteriors of the tokens of the first; the others and those that were dropped are its rivals."""
        arena, ints = beam.arena, beam.ints
        chain = self._chain(beam, ranked[0][1])
        if not chain:
            return ()
        tokens = [(token, frame) for token, frame, _, _ in chain]
        known = {name: place for place, (_, _, _, name) in enumerate(chain, 1)}
        known[int(ROOT)] = 0
        known.setdefault(int(ints[HASH, ranked[0][1]]), len(chain))  # with a space at the end
        detours = []
        for score, column in ranked[1:]:
            name = int(ints[HASH, column])
            begin, other = (known[name], []) if name in known else arena.until(int(ints[RECORD, column]), known)
            if name not in known:
                other.append((int(ints[LAST, column]), int(ints[FRAME, column])))
            if begin is not None:
                detours.append(Detour(begin, len(chain), other, score - ranked[0][0]))
        for winner, record, log_odds in notable(beam.rivals):
            end = known.get(winner)
            if end is not None:
                begin, other = arena.until(record, known)
                if begin is not None and begin <= end:
                    detours.append(Detour(begin, end, other, log_odds))
        return token_posteriors(tokens, detours, self.space)

    def word_bound(self, beam: PrefixBeam) -> Floats:
        """(B,) what the language model can at most give for the begun word, exact where it was asked before."""
        word: Floats = beam.floats[WORD]
        if self.lm is None:
            return word
        trie, most = beam.arena.trie, self.options.beta
        if trie.restricted:
            listed = trie.complete[beam.ints[TRIE]]
            return np.where(np.isnan(word), np.where(listed, most, most + self.options.unk_logp), word)
        return np.where(np.isnan(word), most, word)

    def ask_word(self, beam: PrefixBeam, column: int) -> None:
        """Ask the language model for the begun word, once; the answer is kept in the beam."""
        floats, ints, arena, lm = beam.floats, beam.ints, beam.arena, self.lm
        if lm is None or floats[WORD, column] == floats[WORD, column]:
            return
        state = int(ints[TRIE, column])
        word = arena.trie.prefixes[state]
        listed = bool(word)
        if not word:
            letters = [*arena.letters(int(ints[RECORD, column]), self.space), int(ints[LAST, column])]
            word = self.tokens.text(letters)
            listed = not arena.trie.restricted and word in lm
        else:
            listed = bool(arena.trie.complete[state])
        logp, after = lm.score(arena.contexts[ints[CONTEXT, column]], word)
        options = self.options
        floats[WORD, column] = options.alpha * logp + options.beta + (0.0 if listed else options.unk_logp)
        ints[AFTER, column] = arena.context(after)

    def _ending(self, beam: PrefixBeam, column: int, spaced: bool) -> float:
        """The language model's part for the begun word and the sentence's end."""
        if self.lm is None:
            return 0.0
        contexts = beam.arena.contexts
        if spaced:
            return self.options.alpha * self.lm.end(contexts[beam.ints[CONTEXT, column]])
        self.ask_word(beam, column)
        end = self.lm.end(contexts[beam.ints[AFTER, column]])
        return float(beam.floats[WORD, column]) + self.options.alpha * end

    def _chain(self, beam: PrefixBeam, column: int) -> list[tuple[int, int, float, int]]:
        """Token, frame, log-probability and hash of all tokens, but for a space at the end."""
        chain = beam.arena.chain(int(beam.ints[RECORD, column]))
        last, frame, name = (int(beam.ints[row, column]) for row in (LAST, FRAME, HASH))
        if last != self.space and beam.ints[DEPTH, column]:
            chain.append((last, frame, float(beam.floats[LOUD, column]), name))
        return chain

    def _hypothesis(self, beam: PrefixBeam, score: float, column: int) -> Hypothesis:
        chain = self._chain(beam, column)
        tokens, frames, logps, _ = zip(*chain, strict=True) if chain else ((), (), (), ())
        return Hypothesis(tokens, frames, logps, score)

    def stable(self, beam: PrefixBeam, /) -> int:
        """How many leading tokens all live hypotheses share; every later one begins with them."""
        with beam.arena.lock:
            depth, last = beam.arena.common(beam.ints)
        return depth - 1 if depth and last == self.space else depth  # a space may yet turn out to be the end


def _check(options: DecoderOptions) -> None:
    problems = [
        (options.beam_width < 1, f"beam_width must be at least 1, got {options.beam_width}"),
        (not options.beam_prune_logp < 0, f"beam_prune_logp must be below 0, got {options.beam_prune_logp}"),
        (not options.token_min_logp <= 0, f"token_min_logp must be at most 0, got {options.token_min_logp}"),
        (not 0 <= options.alpha < np.inf, f"alpha must be at least 0, got {options.alpha}"),
        (not abs(options.beta) < np.inf, f"beta must be finite, got {options.beta}"),
        (not -np.inf < options.unk_logp <= 0, f"unk_logp must be at most 0 and finite, got {options.unk_logp}"),
    ]
    for wrong, message in problems:
        if wrong:
            raise UsageError(message)
