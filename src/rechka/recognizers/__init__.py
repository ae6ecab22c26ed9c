"""From audio to events: streams, the chunked recogniser, and the object that users hold."""

from rechka.recognizers.asr import Asr
from rechka.recognizers.assemble import assemble, default_segmenter, make_vad
from rechka.recognizers.chunked import ChunkRecognizer, DecoderFactory
from rechka.recognizers.face import StreamRecognizer
from rechka.recognizers.phrased import PhraseRecognizer
from rechka.recognizers.stream import Stream

__all__ = [
    "Asr",
    "ChunkRecognizer",
    "DecoderFactory",
    "PhraseRecognizer",
    "Stream",
    "StreamRecognizer",
    "assemble",
    "default_segmenter",
    "make_vad",
]
