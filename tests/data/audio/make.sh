#!/bin/sh
# Makes the recordings of this folder anew: needs espeak-ng and ffmpeg. Encoders of other versions give other bytes.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
espeak-ng -v ru -s 150 -w "$work/say.wav" "раз два три"
run() { ffmpeg -hide_banner -loglevel error -y -bitexact "$@"; }
run -i "$work/say.wav" -t 1.2 -ar 16000 -ac 1 "$work/wide.wav"
run -i "$work/wide.wav" -ar 8000 speech.wav
run -i speech.wav -c:a pcm_alaw alaw.wav
run -i speech.wav -c:a pcm_mulaw mulaw.wav
run -i speech.wav -f alaw speech.alaw
run -i speech.wav -f mulaw speech.mulaw
run -i speech.wav -f s16le speech.s16le
run -i speech.wav -frame_size 1024 speech.flac
run -i speech.wav speech.aiff
run -i speech.wav speech.au
run -i speech.wav -c:a libgsm_ms gsm.wav
run -i "$work/wide.wav" -b:a 24k speech.mp3
run -i "$work/wide.wav" -c:a libvorbis -q:a 0 -page_duration 200000 speech.ogg
run -i "$work/wide.wav" -c:a libopus -b:a 16k -page_duration 200000 speech.opus
run -i "$work/wide.wav" -c:a aac -b:a 24k speech.m4a
run -i "$work/wide.wav" -c:a aac -b:a 24k -movflags +faststart faststart.m4a
run -i "$work/wide.wav" -c:a aac -b:a 24k speech.aac
run -i "$work/wide.wav" -c:a libopus -b:a 16k speech.webm
run -i "$work/wide.wav" -c:a libvorbis -q:a 0 -cluster_time_limit 200 speech.mkv
run -i "$work/wide.wav" -c:a wmav2 -b:a 24k -metadata title="проба" speech.wma
run -f lavfi -i color=c=black:s=16x16:r=5:d=1.2 -i "$work/wide.wav" -c:v mpeg4 -c:a aac -b:a 24k -shortest video.mp4
run -f lavfi -i color=c=black:s=16x16:r=5:d=1.2 -c:v mpeg4 silent.mp4
run -i "$work/wide.wav" -f lavfi -i sine=frequency=440:sample_rate=16000:duration=1.2 \
  -filter_complex "[0][1]amerge" -ar 8000 -c:a flac stereo.flac
run -i "$work/wide.wav" -t 0.4 -ac 8 -c:a aac -b:a 64k eight.m4a
run -i "$work/wide.wav" -c:a g722 g722.wav
