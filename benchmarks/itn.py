"""How well number words become digits: round trips over every pattern, and what happens to sentences without a purpose.

    python benchmarks/itn.py [SENTENCES.txt.gz ...] [--show 20]

Patterns are verbalised by ``rechka.text.numerals`` (not by the parser's own tables) in every case that the pattern has.
For files of sentences: the share that is changed, and a few changes to look at.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from rechka.text.itn import to_digits
from rechka.text.numerals import Noun, cardinal, count, group, ordinal
from rechka.text.spell import to_words
from rechka.train.text import read_sentences

ROUBLE = Noun("m", "рубль рубля рублю рубль рублём рубле", "рубли рублей рублям рубли рублями рублях")
CASES = ("nom", "gen", "dat", "acc", "ins", "pre")


def patterns(rng: random.Random, number: int) -> dict[str, list[tuple[str, str]]]:
    """Pattern to pairs of spoken and wanted text."""
    made: dict[str, list[tuple[str, str]]] = {}

    def add(name: str, spoken: str, wanted: str) -> None:
        made.setdefault(name, []).append((spoken, wanted))

    for _ in range(number):
        value, case = rng.choice((rng.randrange(10, 1000), rng.randrange(1000, 999_999))), rng.choice(CASES)
        add("cardinals", f"код {cardinal(value, case)}", f"код {value}")  # type: ignore[arg-type]
        add("money", count(value, ROUBLE, case), f"{value} {ROUBLE.form(value, case)}")  # type: ignore[arg-type]
        day, year = rng.randrange(1, 32), rng.randrange(1900, 2040)
        add("dates", f"{ordinal(day, 'gen', 'n')} мая {ordinal(year, 'gen')} года", f"{day} мая {year} года")
        hour, minute = rng.randrange(0, 24), rng.randrange(1, 60)
        add("times", f"в {cardinal(hour)} {group(f'{minute:02d}')}", f"в {hour}:{minute:02d}")
        phone = "9" + "".join(rng.choice("0123456789") for _ in range(9))
        written = f"8 {phone[:3]} {phone[3:6]}-{phone[6:8]}-{phone[8:]}"
        add("telephone numbers", to_words(written), written)
        percent = rng.randrange(0, 101)
        add("per cent", to_words(f"{percent}%"), f"{percent}%")
        decimal = f"{rng.randrange(0, 100)},{rng.randrange(1, 100):02d}"
        add("decimals", to_words(decimal), decimal)
    return made


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path, nargs="*")
    parser.add_argument("--number", type=int, default=2000, help="examples of each pattern")
    parser.add_argument("--show", type=int, default=10)
    args = parser.parse_args()
    rng = random.Random(1)
    print("| pattern | right, % | an error |")
    print("|---|---|---|")
    for name, pairs in patterns(rng, args.number).items():
        wrong = [(spoken, to_digits(spoken), wanted) for spoken, wanted in pairs if to_digits(spoken) != wanted]
        example = f"{wrong[0][0]}: {wrong[0][1]}, not {wrong[0][2]}" if wrong else ""
        print(f"| {name} | {100 * (1 - len(wrong) / len(pairs)):.1f} | {example} |")
    for path in args.sentences:
        texts = list(read_sentences(path))
        rng.shuffle(texts)
        texts = texts[:20000]
        changed = [(text, to_digits(text)) for text in texts if to_digits(text) != " ".join(text.split())]
        print(f"\n{path.name}: {len(changed)} of {len(texts)} sentences changed")
        for before, after in changed[: args.show]:
            print(f"  {before}\n  {after}")


if __name__ == "__main__":
    main()
