"""Build the embedded model's language model from sentence files and the call-centre grammar.

    python recipes/embedded/language_model.py TEXT.txt.gz ... --exclude MANIFEST.jsonl ... --out lm.rlm
                                              [--words 200000] [--max-mb 18] [--order 3] [--phrases 60000] [--arpa FILE]
                                              [--domain MANIFEST.jsonl --times 10]

Held-out sentences train nothing: they measure the perplexity that is printed. Sentences that repeat a text of an
``--exclude`` file (manifests of recordings, or plain text), whole or by a run of six words, are left out altogether.
The few texts of ``--domain`` (the training half of the telephone prompts) count ``--times`` times, to be heard at all.
About twelve minutes of one slow core and 0.8 GB for a million sentences.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from rechka.text.normalize import scoring
from rechka.train import lm
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


def main() -> None:
    """Parse arguments, build, prune, write, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--exclude", nargs="*", type=Path, default=[])
    parser.add_argument("--domain", nargs="*", type=Path, default=[])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arpa", type=Path)
    parser.add_argument("--words", type=int, default=200_000)
    parser.add_argument("--max-mb", type=float, default=18.0)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--phrases", type=int, default=60_000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    known = itertools.chain.from_iterable(map(read_texts, options.exclude))
    leaks = Overlap(text for text in known if " " in scoring(text))  # single words are not a leak
    sources = {path.name: split(filter(usable, read_sentences(path)), leaks) for path in options.texts}
    phrases = itertools.islice(generate(GRAMMAR_SEED), options.phrases)
    unheard = itertools.islice(generate(GRAMMAR_TEST_SEED, test=True), 600)
    sources["grammar"] = (split(phrases, leaks)[0], split(unheard, leaks)[1])
    for path in options.domain:
        train, test = split(filter(usable, read_texts(path)), leaks)
        sources[str(path)] = (train * options.times, test)
    for name, (train, test) in sources.items():
        print(f"{name}: {len(train)} sentences, {len(test)} for the test", flush=True)

    def texts() -> Iterator[str]:
        return lm.targets(itertools.chain.from_iterable(train for train, _ in sources.values()))

    words = lm.vocabulary(lm.word_counts(texts()), options.words)
    whole = lm.build(texts(), words, order=options.order)
    small = lm.prune(whole, max_bytes=int(options.max_mb * 1_000_000), least=(1, 2, 2))  # no trigram seen once
    for title, model in (("whole", whole), ("pruned", small)):
        print(f"{title}: n-grams {model.model.sizes}")
        for name, (_, test) in sources.items():
            print(f"  {name}: {lm.perplexity(model, test)}", flush=True)
    lm.write_rlm(small, options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    if options.arpa:
        lm.write_arpa(small, options.arpa)


if __name__ == "__main__":
    main()
