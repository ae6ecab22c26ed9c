"""From audio to events: streams, the chunked recogniser, and the object that users hold."""

from rechka.recognizers.asr import Asr
from rechka.recognizers.assemble import assemble, default_segmenter, make_vad
from rechka.recognizers.chunked import ChunkRecognizer, DecoderFactory
from rechka.recognizers.face import StreamRecognizer
from rechka.recognizers.phrased import PhraseRecognizer
from rechka.recognizers.stream import Stream
from rechka.recognizers.two_pass import TwoPassRecognizer, two_pass

__all__ = [
    "Asr",
    "ChunkRecognizer",
    "DecoderFactory",
    "PhraseRecognizer",
    "Stream",
    "StreamRecognizer",
    "TwoPassRecognizer",
    "assemble",
    "default_segmenter",
    "make_vad",
    "two_pass",
]
