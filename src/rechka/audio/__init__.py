"""Audio in: files, bytes, pipes, arrays and the microphone, at any rate, as chunks of float samples.

Decoding libraries are imported when they are first needed, not here.
"""

from rechka.audio.microphone import microphone
from rechka.audio.pcm import PcmDecoder, decode_alaw, decode_mulaw, decode_s16le
from rechka.audio.resample import Resampler
from rechka.audio.sources import open_source

__all__ = ["PcmDecoder", "Resampler", "decode_alaw", "decode_mulaw", "decode_s16le", "microphone", "open_source"]
