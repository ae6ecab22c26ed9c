"""Speech from text: voices, a deterministic plan, and a run that survives being killed."""

from rechka.train.synth.manifest import Record, read_manifest
from rechka.train.synth.plan import PlanOptions, Utterance, make_plan
from rechka.train.synth.run import Summary, synthesise
from rechka.train.synth.voices import TRAIN_VOICES, VOICES, Voice, choose_voices

__all__ = [
    "TRAIN_VOICES",
    "VOICES",
    "PlanOptions",
    "Record",
    "Summary",
    "Utterance",
    "Voice",
    "choose_voices",
    "make_plan",
    "read_manifest",
    "synthesise",
]
