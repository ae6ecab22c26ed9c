"""Manifests of the real recordings that the embedded model learns from and is tested on.

    python recipes/embedded/prepare.py --audio AUDIO --festival DIR --prompts DIR --prompt-texts FILE --out WORK

AUDIO is the folder of free Russian recordings (voxforge_ru_mfcc, tuxpaint_stamps, gcompris_ru, childsplay_ru); the
others are unpacked Debian packages: festvox-ru, asterisk-core-sounds-ru-wav, asterisk-core-sounds-ru (see README.md).

Who may see what is decided here and nowhere else:

* sentences: what ``rechka.train.text.held_out`` takes (hash of the letters modulo 100 below 15) is in no training set
  at all; VoxForge and Festival read one novel, so there another 12 of 100 sentences (``novel_test``) are kept from
  both, to test unseen people with unseen sentences; a prompt is a test prompt if its hash modulo 100 is below 50;
* people: 14 of 100 VoxForge speakers (hash of the name) are in no training set: half of them ``dev``, half ``test``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from pathlib import Path

from rechka.text.normalize import scoring
from rechka.train.text import held_out

SPEAKERS_OUT = 14
NOVEL_OUT = range(15, 27)
PROMPTS_TEST = 50


def bucket(text: str) -> int:
    """The hash that decides: sha256 modulo 100."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") % 100


def novel_test(text: str) -> bool:
    """A sentence of the novel that no reader's recording of is trained on."""
    return bucket(scoring(text)) in NOVEL_OUT


def write(path: Path, records: list[dict]) -> None:
    """A manifest; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    part.replace(path)
    hours = sum(record["duration"] for record in records) / 3600
    print(f"{path.parent.name + '/' + path.name:40} {len(records):6} recordings {hours:6.2f} h")


def voxforge(folder: Path, out: Path) -> None:
    """Speakers known and not, sentences known and not."""
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    sets: dict[str, list[dict]] = {
        "train": [],
        "dev": [],
        "test": [],
        "test_sentence_seen": [],
        "test_speaker_seen": [],
    }
    for record in records:
        record["feat_file"] = str((folder / record["feat_file"]).resolve())
        if held_out(record["text"]):
            continue
        stranger, fresh = bucket(record["speaker"]), novel_test(record["text"])
        if stranger >= SPEAKERS_OUT:
            sets["test_speaker_seen" if fresh else "train"].append(record)
        elif fresh:
            sets["dev" if stranger < SPEAKERS_OUT // 2 else "test"].append(record)
        else:
            sets["test_sentence_seen"].append(record)
    for name, chosen in sets.items():
        write(out / "voxforge" / f"{name}.jsonl", chosen)


def festival(folder: Path, out: Path) -> None:
    """One studio speaker reading the same novel."""
    voice = next(folder.rglob("txt.done.data"))
    train, test = [], []
    for line in voice.read_text("utf-8").splitlines():
        match = re.match(r'\( (\S+) "(.*)" \)', line)
        if not match:
            continue
        text = scoring(match[2].replace("+", ""))
        path = voice.parent.parent / "wav" / f"{match[1]}.wav"
        if re.search("[^а-я ]", text) or not path.exists():
            continue
        seconds = path.stat().st_size / 32000
        record = {"audio_filepath": str(path.resolve()), "duration": seconds, "text": text, "speaker": "festival_nsh"}
        (test if held_out(text) or novel_test(text) else train).append(record)
    write(out / "festival" / "train.jsonl", train)
    write(out / "festival" / "test.jsonl", test)


def small(folder: Path, out: Path) -> None:
    """Word lists read by three people."""
    records = []
    for name in ("tuxpaint_stamps", "gcompris_ru", "childsplay_ru"):
        for line in (folder / name / "manifest.jsonl").read_text("utf-8").splitlines():
            record = json.loads(line)
            record["audio_filepath"] = str((folder / name / record["audio_filepath"]).resolve())
            if not held_out(record["text"]):
                records.append(record)
    write(out / "words" / "train.jsonl", records)


def prompts(folder: Path, texts: Path, out: Path) -> None:
    """Telephone prompts by one professional speaker: split by the text, so the same words never stand on both sides."""
    train, test = [], []
    for line in gzip.decompress(texts.read_bytes()).decode("utf-8").splitlines():
        name, _, text = line.partition(":")
        path = next(folder.rglob(f"{name}.wav"), None) if text and not name.startswith(";") else None
        text = scoring(text)
        if path is None or not text or re.search("[^а-я ]", text):
            continue
        seconds = path.stat().st_size / 16000
        record = {"audio_filepath": str(path.resolve()), "duration": seconds, "text": text, "speaker": "ivrvoice_ru"}
        record["source"] = name
        # A test needs words to count; the shortest prompts (single letters and numbers) serve training only.
        if bucket(text) >= PROMPTS_TEST:
            train.append(record)
        elif len(text.split()) >= 3:
            test.append(record)
    write(out / "prompts" / "train.jsonl", train)
    write(out / "prompts" / "test.jsonl", test)
    write(out / "prompts" / "all.jsonl", [r for r in train if len(r["text"].split()) >= 3] + test)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--festival", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--prompt-texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    voxforge(args.audio / "voxforge_ru_mfcc", args.out)
    festival(args.festival, args.out)
    small(args.audio, args.out)
    prompts(args.prompts, args.prompt_texts, args.out)


if __name__ == "__main__":
    main()
