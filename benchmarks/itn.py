"""How well number words become digits: invented patterns inside real sentences, real sentences, and what must stay.

    python benchmarks/itn.py [SENTENCES.txt.gz ...]

1. Patterns: an expression written with digits is verbalised by ``rechka.text.numerals`` and ``rechka.text.spell``, in
   every case that the pattern has, and must come back. With files of sentences each stands inside one of them that has
   no number word, so that the neighbours are real words.
2. Labelled: sentences of tests/data/text/numbers.tsv, with the number words that people wrote.
3. Files of sentences: how many of those without a number word are changed (none should be); and, for punctuation, how
   many of the sentences that begin with a question word are questions, and which share of all questions that is.

Precision: of the expressions with digits that the program wrote, how many are right. Recall: of those that are wanted,
how many it wrote. An expression is a run of words that hold a digit.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from rechka.text.itn import to_digits
from rechka.text.nouns import ROUBLE
from rechka.text.number_words import CASES, table
from rechka.text.numerals import cardinal, count, group, ordinal
from rechka.text.spell import to_words
from rechka.train.text import held_out, read_sentences

LABELLED = Path(__file__).parents[1] / "tests/data/text/numbers.tsv"
SUSPECTS = {
    "полтора",
    "полторы",
    "полутора",
    "половина",
    "половине",
    "половину",
    "без",
    "раз",
    "от",
    "плюс",
    "минус",
    "час",
}
QUESTIONS = {"почему", "зачем", "откуда", "сколько", "куда", "разве", "неужели"}
MONTHS = ("января", "марта", "мая", "августа", "ноября", "декабря")
Pair = tuple[str, str]


def expressions(text: str) -> list[str]:
    """Runs of words that hold a digit."""
    runs = itertools.groupby(text.split(), key=lambda word: any(char.isdigit() for char in word))
    return [" ".join(words) for digits, words in runs if digits]


def made(rng: random.Random) -> Iterator[tuple[str, Pair]]:
    """One example of every pattern: its name, spoken and wanted."""
    value, case = rng.choice((rng.randrange(10, 1000), rng.randrange(1000, 999_999))), rng.choice(CASES)
    yield "cardinals", (cardinal(value, case), str(value))
    yield "money", (count(value, ROUBLE, case), f"{value} {ROUBLE.form(value, case)}")
    small = rng.randrange(1, 10)
    yield "small sums", (count(small, ROUBLE, case), f"{small} {ROUBLE.form(small, case)}")
    day, year, month = rng.randrange(1, 32), rng.randrange(1900, 2040), rng.choice(MONTHS)
    yield "dates", (f"{ordinal(day, 'gen', 'n')} {month} {ordinal(year, 'gen')} года", f"{day} {month} {year} года")
    yield "years", (f"в {ordinal(year, 'pre')} году", f"в {year} году")
    number, gender = rng.randrange(11, 400), rng.choice("mfn")
    wanted = ordinal(number, case, gender)  # type: ignore[arg-type]
    tail = wanted[-1] if wanted[-2] in "аеиоуыэюяь" else wanted[-2:]
    if number % 100:
        yield "ordinals", (wanted, f"{number}-{tail}")
    hour, minute = rng.randrange(0, 24), rng.randrange(1, 60)
    yield "times, 15:30", (f"в {cardinal(hour)} {group(f'{minute:02d}')}", f"в {hour}:{minute:02d}")
    small_hour, before = rng.randrange(1, 13), rng.choice((5, 10, 15, 20, 25, rng.randrange(1, 30)))
    named = cardinal(small_hour) if small_hour > 1 else "час"
    spoken = f"без {cardinal(before, 'gen', 'f')} {'минут ' * rng.randrange(2)}{named}"
    yield "times, без пяти шесть", (spoken, f"{(small_hour - 2) % 12 + 1}:{60 - before:02d}")
    half = rng.choice(("половина ", "в половине ", "пол"))
    spoken = f"{half}{ordinal(small_hour, 'gen')}"
    start = "в " if half.startswith("в") else ""
    if not (half == "пол" and small_hour == 11):
        yield "times, половина третьего", (spoken, f"{start}{(small_hour - 2) % 12 + 1}:30")
    area = "9" + f"{rng.randrange(100):02d}"
    written = f"{area} {rng.randrange(1000):03d}-{rng.randrange(100):02d}-{rng.randrange(100):02d}"
    head = rng.choice(("8 ", "+7 ", ""))
    yield "telephone numbers", (to_words(head + written), head + written)
    percent = rng.randrange(0, 101)
    yield "per cent", (to_words(f"{percent}%"), f"{percent}%")
    decimal = f"{rng.randrange(0, 100)},{rng.randrange(1, 100):02d}"
    yield "decimals", (to_words(decimal), decimal)
    whole = rng.randrange(2, 60)
    yield "halves", (f"{cardinal(whole)} с половиной часа", f"{whole},5 часа")
    low = rng.randrange(2, 50)
    high = rng.randrange(low + 1, 100)
    spoken = f"от {cardinal(low, 'gen')} до {cardinal(high, 'gen')}"
    yield "от и до", (spoken, f"от {low} до {high}")
    low = rng.randrange(2, 9)
    yield "two or three", (f"{cardinal(low)} {cardinal(low + 1)} дня", f"{low}-{low + 1} дня")
    code = f"{rng.randrange(10_000):04d}"
    yield "codes", (" ".join(["код", *(cardinal(int(digit)) for digit in code)]), f"код {code}")


def plain(path: Path, limit: int) -> list[str]:
    """Held-out sentences without number words, lower case, bare."""
    known = table().keys() | SUSPECTS
    texts = []
    for sentence in read_sentences(path):
        words = "".join(char.lower() if char.isalpha() or char in " -" else " " for char in sentence).split()
        parts = {part.replace("ё", "е") for word in words for part in word.split("-")}
        if held_out(sentence) and not parts & known and not any(part.startswith("пол") for part in parts):
            texts.append(" ".join(word for word in words if word.strip("-")))
        if len(texts) == limit:
            break
    return texts


def questions(path: Path, limit: int) -> tuple[float, float]:
    """Per cent of held-out sentences beginning with a question word that end with ``?``, and of all ``?`` these are."""
    first = asked = both = 0
    for sentence in itertools.islice((text for text in read_sentences(path) if held_out(text)), limit):
        begins = sentence.split()[0].lower().strip('«"(-–—,') in QUESTIONS
        ends = "?" in sentence[-3:]
        first, asked, both = first + begins, asked + ends, both + (begins and ends)
    return 100 * both / max(1, first), 100 * both / max(1, asked)


def judged(pairs: Sequence[Pair]) -> tuple[float, float, float, list[tuple[str, str, str]]]:
    """Precision, recall and share of texts without an error, all in per cent; the errors."""
    right = written = wanted = 0
    wrong = []
    for spoken, target in pairs:
        answer = to_digits(spoken)
        mine, theirs = expressions(answer), expressions(target)
        left = list(theirs)
        for found in mine:
            if found in left:
                left.remove(found)
                right += 1
        written, wanted = written + len(mine), wanted + len(theirs)
        if answer != target:
            wrong.append((spoken, answer, target))
    whole = 100 * (1 - len(wrong) / len(pairs))
    return 100 * right / max(1, written), 100 * right / max(1, wanted), whole, wrong


def report(name: str, pairs: Sequence[Pair], *, show: int) -> None:
    """One line of the table, and errors behind it."""
    precision, recall, whole, wrong = judged(pairs)
    example = f"{wrong[0][0]}: {wrong[0][1]}, not {wrong[0][2]}" if wrong and show else ""
    print(f"| {name} | {len(pairs)} | {precision:.1f} | {recall:.1f} | {whole:.1f} | {example} |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path, nargs="*")
    parser.add_argument("--number", type=int, default=500, help="examples of each pattern")
    parser.add_argument("--no-examples", action="store_true", help="do not show an error of each pattern")
    args = parser.parse_args()
    rng = random.Random(1)
    carriers = [text for path in args.sentences for text in plain(path, 5000)]
    patterns: dict[str, list[Pair]] = {}
    for _ in range(args.number):
        for name, (spoken, wanted) in made(rng):
            words = rng.choice(carriers).split() if carriers else []
            at = rng.randrange(len(words) + 1)
            texts = (" ".join([*words[:at], text, *words[at:]]) for text in (spoken, wanted))
            patterns.setdefault(name, []).append((next(texts), next(texts)))
    print("| | texts | precision, % | recall, % | texts right, % | an error |\n|---|---|---|---|---|---|")
    for name, pairs in patterns.items():
        report(name, pairs, show=not args.no_examples)
    lines = [line.split("\t") for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    for source in ("dialogue", "everyday", "literature"):
        pairs = [(spoken, wanted) for name, spoken, wanted in lines if name == source]
        report(f"labelled: {source}", pairs, show=not args.no_examples)
    if carriers:
        changed = [text for text in carriers if to_digits(text) != text]
        print(f"\n{len(changed)} of {len(carriers)} sentences without a number word changed", *changed[:5], sep="\n  ")
    for path in args.sentences:
        precision, recall = questions(path, 10_000)
        print(f"{path.name}, question word first: {precision:.0f} % are questions, {recall:.0f} % of all questions")


if __name__ == "__main__":
    main()
