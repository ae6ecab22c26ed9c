"""Build the embedded model's language model from sentence files and the call-centre grammar.

    python recipes/embedded/language_model.py TEXT.txt.gz ... --exclude MANIFEST.jsonl ... --out lm.rlm
                                              [--words 200000] [--max-mb 18] [--order 3] [--phrases 60000] [--arpa FILE]
                                              [--domain MANIFEST.jsonl --times 10]
                                              [--telephony FILE.txt ... --telephony-times 3 --each 200]
                                              [--dictionary ru_RU.dic --affixes ru_RU.aff --forms 100000]
                                              [--record lm_sets.npz]

Held-out sentences train nothing: they measure the perplexity that is printed. Sentences that repeat a text of an
``--exclude`` file (manifests of recordings, or plain text), whole or by a run of six words, are left out altogether.
The few texts of ``--domain`` (the training half of the telephone prompts) count ``--times`` times, to be heard at all,
and so do the phrases of ``--telephony``, template files of ``rechka.train.telephony``. Of a Hunspell dictionary the
``--forms`` likeliest inflected forms that no text holds join the vocabulary. ``--record`` writes hashes of the domain's
and telephony's sentences and of what was excluded, so that a test can prove them apart.
About three minutes of one core and 1 GB for a million sentences.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rechka.text.normalize import scoring
from rechka.train import lm, telephony, wordforms
from rechka.train.grammar import generate
from rechka.train.text import Overlap, held_out, read_sentences, read_texts, unique, usable

TEST_SENTENCES = 8000  # of each source, for the perplexities
GRAMMAR_SEED, GRAMMAR_TEST_SEED = 2, 777  # other phrases than the synthesised prompts, whose seed is 1


def split(sentences: Iterable[str], leaks: Overlap) -> tuple[list[str], list[str]]:
    """Sentences in scoring form: those to train with, and the first held-out ones."""
    train: list[str] = []
    test: list[str] = []
    for text in unique(map(scoring, sentences)):
        if not leaks(text):
            (test if held_out(text) else train).append(text)
    return train, test[:TEST_SENTENCES]


def short(text: str) -> bool:
    """Whether a prompt or a phrase of a telephone system may be learnt: one word is enough, and they can be long."""
    return usable(text, min_words=1, max_words=telephony.MAX_WORDS)


def hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Sorted, different: the first eight bytes of each text's sha256."""
    found = {int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts}
    return np.array(sorted(found), np.uint64)


def runs(texts: Iterable[str], size: int = 6) -> Iterator[str]:
    """All runs of ``size`` words."""
    for text in texts:
        words = scoring(text).split()
        yield from (" ".join(words[i : i + size]) for i in range(len(words) - size + 1))


def main() -> None:
    """Parse arguments, build, prune, write, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--exclude", nargs="*", type=Path, default=[])
    parser.add_argument("--domain", nargs="*", type=Path, default=[])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--telephony", nargs="*", type=Path, default=[])
    parser.add_argument("--telephony-times", type=int, default=3)
    parser.add_argument("--each", type=int, default=200, help="phrases of a template at most")
    parser.add_argument("--dictionary", type=Path)
    parser.add_argument("--affixes", type=Path)
    parser.add_argument("--forms", type=int, default=100_000)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arpa", type=Path)
    parser.add_argument("--words", type=int, default=200_000)
    parser.add_argument("--max-mb", type=float, default=18.0)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--phrases", type=int, default=60_000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    known = [text for path in options.exclude for text in read_texts(path)]
    known = [text for text in known if " " in scoring(text)]  # single words are not a leak
    leaks = Overlap(known)
    sources = {path.name: split(filter(usable, read_sentences(path)), leaks) for path in options.texts}
    phrases = itertools.islice(generate(GRAMMAR_SEED), options.phrases)
    unheard = itertools.islice(generate(GRAMMAR_TEST_SEED, test=True), 600)
    sources["grammar"] = (split(phrases, leaks)[0], split(unheard, leaks)[1])
    domain: list[str] = []
    for path in options.domain:
        train, test = split(filter(short, read_texts(path)), leaks)
        domain += train
        sources[str(path)] = (train * options.times, test)
    if options.telephony:
        templates = [template for path in options.telephony for template in telephony.read_templates(path)]
        train, test = split(telephony.sentences(templates, each=options.each), leaks)
        domain += train
        sources["telephony"] = (train * options.telephony_times, test)
        print(f"telephony: {len(templates)} templates")
    for name, (train, test) in sources.items():
        print(f"{name}: {len(train)} sentences, {len(test)} for the test", flush=True)

    def texts() -> Iterator[str]:
        return lm.targets(itertools.chain.from_iterable(train for train, _ in sources.values()))

    counts = lm.word_counts(texts())
    words = lm.vocabulary(counts, options.words)
    if options.dictionary:
        families = list(wordforms.families(options.dictionary, options.affixes))
        words += wordforms.likely_forms(counts, families, options.forms)
    print(f"{len(words)} words of {len(counts)} in the texts", flush=True)
    whole = lm.build(texts(), words, order=options.order)
    small = lm.prune(whole, max_bytes=int(options.max_mb * 1_000_000), least=(1, 2, 2))  # no trigram seen once
    lm.write_rlm(small, options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    for title, model in (("whole", whole), ("pruned", small)):
        print(f"{title}: n-grams {model.model.sizes}")
        for name, (_, test) in sources.items():
            if test:  # prompts of the training half have none
                print(f"  {name}: {lm.perplexity(model, test)}", flush=True)
    if options.arpa:
        lm.write_arpa(small, options.arpa)
    if options.record:
        np.savez_compressed(
            options.record,
            sentences=hashes(text for text in domain if " " in text),
            test_sentences=hashes(map(scoring, known)),
            test_runs=hashes(runs(known)),
        )


if __name__ == "__main__":
    main()
