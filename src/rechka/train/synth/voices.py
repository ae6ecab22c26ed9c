"""The voices, their licences, and which of them may teach a model that is given away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rechka.errors import UsageError


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthetic voice.

    Attributes:
        name: what the user writes and what manifests say; for espeak-ng ``espeak-ng+VARIANT``.
        engine: ``"rhvoice"``, ``"espeak"`` or ``"toy"``.
        gender: ``"m"`` or ``"f"``.
        licence: SPDX identifier of the voice data.
        pace: letters and spaces a second at tempo 1, measured on 300 utterances; used to plan hours, not to judge.
        weight: share among the voices that are chosen together.
    """

    name: str
    engine: str
    gender: str
    licence: str
    pace: float
    weight: float = 1.0

    @property
    def free(self) -> bool:
        """Whether a model that learned from this voice may be given away and sold."""
        return "-NC" not in self.licence


_LGPL, _NC = "LGPL-2.1-or-later", "CC-BY-NC-ND-4.0"
ESPEAK = "espeak-ng"
_ESPEAK_VARIANTS = (
    *((f"m{i}", "m") for i in range(1, 8)),
    *((f"f{i}", "f") for i in range(1, 6)),
    *((name, "m") for name in ("klatt", "klatt2", "klatt3", "klatt4")),
)

# Licences: copyright file of Debian's rhvoice-russian 1.8 and the read-me files of the voices; elena is GPL-3 in 1.14.
# aleksandr and aleksandr-hq are one person, hence their smaller weights. espeak-ng is 7 % in all.
_ALL = (
    Voice("aleksandr", "rhvoice", "m", _LGPL, 11.5, 0.17),
    Voice("aleksandr-hq", "rhvoice", "m", "CC-BY-SA-4.0", 11.5, 0.17),
    Voice("anna", "rhvoice", "f", _LGPL, 15.5, 0.20),
    Voice("elena", "rhvoice", "f", _LGPL, 14.5, 0.20),
    Voice("irina", "rhvoice", "f", _LGPL, 13.0, 0.19),
    *(
        Voice(f"{ESPEAK}+{variant}", "espeak", gender, "GPL-3.0-or-later", 16.0, 0.07 / len(_ESPEAK_VARIANTS))
        for variant, gender in _ESPEAK_VARIANTS
    ),
    Voice("toy", "toy", "-", "CC0-1.0", 15.0),
    Voice("arina", "rhvoice", "f", _NC, 14.0, 0.2),
    Voice("artemiy", "rhvoice", "m", _NC, 14.0, 0.2),
    Voice("evgeniy-rus", "rhvoice", "m", _NC, 14.0, 0.2),
    Voice("mikhail", "rhvoice", "m", _NC, 14.0, 0.2),
    Voice("pavel", "rhvoice", "m", _NC, 14.0, 0.2),
    Voice("tatiana", "rhvoice", "f", _NC, 14.0, 0.2),
    Voice("victoria", "rhvoice", "f", _NC, 14.0, 0.2),
    Voice("vitaliy", "rhvoice", "m", _NC, 14.0, 0.2),
    Voice("yuriy", "rhvoice", "m", _NC, 14.0, 0.2),
)

VOICES: dict[str, Voice] = {voice.name: voice for voice in _ALL}
TRAIN_VOICES: tuple[Voice, ...] = tuple(voice for voice in _ALL if voice.free and voice.engine != "toy")
"""The default set: only voices whose licence lets a trained model be redistributed."""


def choose_voices(names: Sequence[str], *, allow_nc: bool = False) -> tuple[Voice, ...]:
    """The voices of a run.

    Args:
        names: voice names; ``espeak-ng`` stands for all its variants; empty means the training set.
        allow_nc: accept voices under CC BY-NC-ND, for private tests.
    Raises:
        UsageError: an unknown name, or a non-commercial voice without leave.
    """
    if not names:
        return TRAIN_VOICES
    chosen: dict[str, Voice] = {}
    for name in names:
        found = [v for v in _ALL if v.name == name or (name == ESPEAK and v.engine == "espeak")]
        if not found:
            known = ", ".join(v.name for v in _ALL if v.engine == "rhvoice")
            raise UsageError(f"unknown voice {name!r}", remedy=f"choose from {known}, {ESPEAK}, {ESPEAK}+m1 ...")
        chosen.update({v.name: v for v in found})
    barred = [v.name for v in chosen.values() if not v.free]
    if barred and not allow_nc:
        raise UsageError(
            f"the voices {', '.join(barred)} are CC BY-NC-ND 4.0: a model trained on them may not be given away",
            remedy="leave them out, or set allow_nc (--allow-nc) for a private test set",
        )
    return tuple(chosen.values())
