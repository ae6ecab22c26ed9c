"""Help for tests, shipped for the authors of plug-ins: a model without weights, fakes, ways to cut audio in pieces."""

from rechka.testing.chunkings import chunkings
from rechka.testing.fakes import FakeBackend, ScriptedDecoder, ScriptedModel
from rechka.testing.toy import say, silence, toy_asr

__all__ = ["FakeBackend", "ScriptedDecoder", "ScriptedModel", "chunkings", "say", "silence", "toy_asr"]
