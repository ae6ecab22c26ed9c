"""From audio to events: streams, the chunked recogniser, and the object that users hold."""

from rechka.recognizers.asr import Asr
from rechka.recognizers.assemble import assemble
from rechka.recognizers.chunked import ChunkRecognizer, DecoderFactory
from rechka.recognizers.stream import Stream

__all__ = ["Asr", "ChunkRecognizer", "DecoderFactory", "Stream", "assemble"]
