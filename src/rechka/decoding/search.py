"""One frame of the prefix beam search, as array operations over all hypotheses and tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

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
    PARENT,
    PB,
    PNB,
    RECORD,
    TOT,
    TRIE,
    WORD,
    Floats,
    Ints,
    PrefixBeam,
    extend_hash,
)

if TYPE_CHECKING:
    from rechka.decoding.beam import CtcBeam

_NONE: Ints = np.empty(0, np.int64)
_IMPOSSIBLE = -1e300
_NOTABLE = -6.0
"""Natural log-odds below which a lost hypothesis does not count against the words of the winner."""


class Search:
    """The beam of one phrase while it moves; its arrays are changed in place and are never those of the beam given."""

    def __init__(self, beam: PrefixBeam, decoder: CtcBeam) -> None:
        arena, ints, self._rivals = beam.arena.compact(beam.ints, beam.rivals)
        self._lost: list[tuple[int, int, float]] = []
        self.decoder = decoder
        self.beam = PrefixBeam(arena, beam.floats.copy(), ints.copy(), beam.parents, beam.children)

    def value(self) -> PrefixBeam:
        """The beam as it stands; the search ends here."""
        return replace(self.beam, rivals=(*self._rivals, *self._lost))

    def rest(self, blank: float) -> None:
        """A frame in which only blank is tried: hypotheses and their order stay."""
        floats = self.beam.floats
        floats[PB] = floats[TOT] + blank
        floats[PNB] = -np.inf
        floats[TOT] = floats[PB]

    def step(self, frame: int, row: Floats) -> None:
        """One frame; ``row`` (V,) holds -inf for tokens that are not tried."""
        decoder, beam = self.decoder, self.beam
        floats, ints, parents, children = beam.floats, beam.ints, beam.parents, beam.children
        last, total = ints[LAST], floats[TOT]
        repeat = row[last]
        stay = np.empty((3, len(last)))  # PB, PNB, TOT of the hypotheses that stay as they are
        np.add(total, row[decoder.tokens.blank], out=stay[PB])
        # A space after a space is the same space.
        np.add(np.where(last == decoder.space, total, floats[PNB]), repeat, out=stay[PNB])
        louder = (repeat > floats[LOUD]) & (stay[PNB] >= stay[PB])
        overtaken = _NONE
        if len(children):
            token = last[children]
            given = np.where(last[parents] == token, floats[PB, parents], total[parents]) + row[token]
            alone = np.logaddexp(stay[PB, children], stay[PNB, children])
            stay[PNB, children] = np.logaddexp(stay[PNB, children], given)
            overtaken = (given > alone).nonzero()[0]
        np.logaddexp(stay[PB], stay[PNB], out=stay[TOT])

        stays, sources, tokens = self._select(row, stay[TOT] + floats[BONUS])
        num = len(sources)
        begin, fresh = beam.arena.size, _NONE
        if num or len(overtaken):
            fresh = np.concatenate((sources, parents[overtaken])) if len(overtaken) else sources
            beam.arena.push(ints[:4].take(fresh, axis=1), floats[LOUD].take(fresh))
        grown = row[tokens]
        probs = np.where(last[sources] == tokens, floats[PB, sources], total[sources]) + grown
        floats[:3] = stay
        np.copyto(floats[LOUD], repeat, where=louder)
        np.copyto(ints[FRAME], frame, where=louder)
        if len(overtaken):  # the likeliest alignment is now the parent's, one token longer
            late = children[overtaken]
            ints[RECORD, late] = np.arange(begin + num, begin + len(fresh))
            ints[FRAME, late] = frame
            floats[LOUD, late] = row[last[late]]

        kept = len(stays)
        if not num and kept == len(last):
            return
        columns = np.concatenate((stays, sources))
        floats, ints = floats.take(columns, axis=1), ints.take(columns, axis=1)
        if num:
            born = ints[:, kept:]
            self._born(floats[:, kept:], born, tokens, probs, grown)
            born[RECORD] = np.arange(begin, begin + num)
            born[FRAME] = frame
        if decoder.options.recombine and num and (tokens == decoder.space).any():
            floats, ints = self._recombined(floats, ints)
        hashes, wanted = ints[HASH], ints[PARENT]
        order = hashes.argsort()
        at = order.take(hashes.searchsorted(wanted, sorter=order), mode="clip")
        children = (hashes[at] == wanted).nonzero()[0]
        self.beam = PrefixBeam(beam.arena, floats, ints, at[children], children)

    def _recombined(self, floats: Floats, ints: Ints) -> tuple[Floats, Ints]:
        """Without hypotheses that lost: another one's future is the same, and it is likelier, ended in blank or not.

        The future is told by the last token, the begun word, and the states of language model and hotwords.
        """
        trie, hotwords = self.beam.arena.trie, self.decoder.hotwords
        spelled = trie.spelled(ints[TRIE])
        key = (ints[CONTEXT] * len(trie) + ints[TRIE]) * len(self.decoder.tokens) + ints[LAST]
        if hotwords is not None:
            key = key * len(hotwords.credit) + ints[HOT]
        order = np.lexsort((-(floats[TOT] + floats[LM]), key))
        ordered = key[order]
        first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
        rival = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
        lead = floats[LM, rival] - floats[LM, order]
        lost = (floats[PB, rival] + lead >= floats[PB, order]) & (floats[PNB, rival] + lead >= floats[PNB, order])
        lost &= ~first & spelled[order]
        if not lost.any():
            return floats, ints
        self._remember(floats, ints, rival[lost], order[lost])
        kept = np.sort(order[~lost])
        return floats.take(kept, axis=1), ints.take(kept, axis=1)

    def _remember(self, floats: Floats, ints: Ints, winners: Ints, losers: Ints) -> None:
        """Keep what the losers were worth, for the confidence of the winners' words."""
        odds = floats[TOT, losers] + floats[LM, losers] - floats[TOT, winners] - floats[LM, winners]
        notable = odds > _NOTABLE
        winners, losers = winners[notable], losers[notable]
        begin = self.beam.arena.push(ints[:4].take(losers, axis=1), floats[LOUD].take(losers))
        records = range(begin, begin + len(losers))
        self._lost += zip(ints[HASH, winners].tolist(), records, odds[notable].tolist(), strict=True)

    def _select(self, row: Floats, stay: Floats) -> tuple[Ints, Ints, Ints]:
        """Survivors of a frame: indexes of those that stay, and source and token of those that are one token longer."""
        decoder, beam = self.decoder, self.beam
        floats, ints, options = beam.floats, beam.ints, decoder.options
        num, vocabulary, space = len(stay), len(row), decoder.space
        last, total = ints[LAST], floats[TOT]
        scores = np.empty(num * (vocabulary + 1))
        scores[:num] = stay
        longer = scores[num:].reshape(num, vocabulary)
        np.add(beam.arena.trie.ahead.take(ints[TRIE], axis=0), row, out=longer)
        longer += (total + floats[LM])[:, None]
        if decoder.hotwords is not None:
            longer += decoder.hotwords.ahead.take(ints[HOT], axis=0)
        # Repeating a token needs a blank between; a space cannot be repeated at all.
        longer[np.arange(num), last] += np.where(last == space, -np.inf, floats[PB] - total)
        longer[:, decoder.tokens.blank] = -np.inf
        if len(beam.children):
            longer[beam.parents, last[beam.children]] = -np.inf  # they are in the beam already
        spaced = None
        if decoder.lm is not None:
            spaced = longer[:, space].copy()
            longer[:, space] = -np.inf

        # A frame may leave nothing but words that end, which are looked at below.
        least = max(_IMPOSSIBLE, scores.max() + options.beam_prune_logp)
        chosen, least = _top((scores >= least).nonzero()[0], scores, options.beam_width, least)
        if spaced is not None and row[space] > -np.inf:
            ending = (spaced + decoder.word_bound(beam) >= least).nonzero()[0]
            if len(ending):
                for column in ending[np.isnan(floats[WORD, ending])].tolist():
                    decoder.ask_word(beam, column)
                places = num + ending * vocabulary + space
                scores[places] = spaced[ending] + floats[WORD, ending]
                chosen = np.concatenate((chosen, places[scores[places] >= least]))
                least = max(least, scores[chosen].max() + options.beam_prune_logp)
                chosen, _ = _top(chosen[scores[chosen] >= least], scores, options.beam_width, least)
                chosen.sort()
        split = int(chosen.searchsorted(num))
        sources, tokens = np.divmod(chosen[split:] - num, vocabulary)
        return chosen[:split], sources, tokens

    def _born(self, floats: Floats, ints: Ints, tokens: Ints, probs: Floats, grown: Floats) -> None:
        """Turn copies of the sources (columns) into the hypotheses that are ``tokens`` longer, in place."""
        decoder, trie = self.decoder, self.beam.arena.trie
        states = ints[TRIE]
        after = trie.next[states, tokens].astype(np.int64)
        if (after < 0).any():
            for column in (after < 0).nonzero()[0].tolist():
                after[column] = trie.step(int(states[column]), int(tokens[column]))
        floats[PB], floats[PNB], floats[TOT], floats[LOUD] = -np.inf, probs, probs, grown
        if decoder.lm is not None:
            ended = (tokens == decoder.space).nonzero()[0]
            if len(ended):
                floats[LM, ended] += floats[WORD, ended]
                ints[CONTEXT, ended] = ints[AFTER, ended]
            floats[WORD] = np.nan
            ints[AFTER] = -1
        bonus = trie.partial[after]
        if decoder.hotwords is not None:
            floats[LM] += decoder.hotwords.earned[ints[HOT], tokens]
            ints[HOT] = decoder.hotwords.next[ints[HOT], tokens]
            bonus = bonus + decoder.hotwords.credit[ints[HOT]]
        floats[BONUS] = floats[LM] + bonus
        ints[PARENT] = ints[HASH]
        ints[HASH] = extend_hash(ints[HASH], tokens)
        ints[LAST] = tokens
        ints[TRIE] = after
        ints[DEPTH] += 1


def _top(chosen: Ints, scores: Floats, width: int, least: float) -> tuple[Ints, float]:
    """The ``width`` best of the chosen, ascending, and the score of the worst (``least`` if there was room for all)."""
    if len(chosen) <= width:
        return chosen, least
    values = scores[chosen]
    best = values.argpartition(len(values) - width)[len(values) - width :]
    best.sort()
    return chosen[best], float(values[best].min())
