// Audio in: the microphone through an AudioWorklet, files through the browser's decoder; both become 16-bit samples.

export const RATE = 16000;
const TAPS = 16; // of the windowed sinc, on each side of its middle, at the lower of the two rates
const PATIENCE_MS = 300; // for the last piece of the microphone
const FINE = 64; // places in the kernel's table between two samples

/** A streaming resampler: a windowed sinc from a table at the exact place of every output sample; state is carried. */
export class Resampler {
  constructor(from, to) {
    this.step = from / to;
    const cut = Math.min(1, to / from);
    this.reach = Math.ceil(TAPS / cut);
    this.kernel = Float32Array.from({ length: this.reach * FINE + 2 }, (_, i) => {
      const x = Math.PI * cut * (i / FINE);
      const window = 0.5 + 0.5 * Math.cos((Math.PI * i) / FINE / (this.reach + 1));
      return cut * window * (x === 0 ? 1 : Math.sin(x) / x);
    });
    this.kept = new Float32Array(this.reach);
    this.at = this.reach; // place of the next output in kept + input
  }

  push(samples) {
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const out = new Float32Array(Math.ceil(all.length / this.step) + 1);
    let count = 0;
    while (this.at + this.reach < all.length) {
      let sum = 0;
      for (let i = Math.ceil(this.at - this.reach); i <= this.at + this.reach; i++) {
        sum += all[i] * this.kernel[Math.round(Math.abs(i - this.at) * FINE)];
      }
      out[count++] = sum;
      this.at += this.step;
    }
    const drop = Math.max(0, Math.floor(this.at) - this.reach);
    this.kept = all.slice(drop);
    this.at -= drop;
    return out.slice(0, count);
  }
}

/** Channels of equal length to interleaved little-endian 16-bit samples. */
export function pcm16(channels) {
  const length = channels[0].length;
  const view = new DataView(new ArrayBuffer(2 * length * channels.length));
  for (let i = 0; i < length; i++) {
    for (let c = 0; c < channels.length; c++) {
      const sample = Math.max(-1, Math.min(1, channels[c][i]));
      view.setInt16(2 * (i * channels.length + c), Math.round(sample * 32767), true);
    }
  }
  return view.buffer;
}

/** Start the microphone. `hear` gets Float32Arrays at RATE; the returned function stops it when all was heard. */
export async function openMicrophone(hear) {
  // As it is: models do not mind quiet speech, but the browser's gain control drives loud speech into clipping.
  const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
  const context = new AudioContext();
  const close = async () => {
    for (const track of stream.getTracks()) track.stop();
    await context.close();
  };
  try {
    await context.audioWorklet.addModule("worklet.js");
    await context.resume();
    const node = new AudioWorkletNode(context, "rechka-capture", { numberOfOutputs: 1 });
    const resampler = new Resampler(context.sampleRate, RATE);
    let ended;
    const all = new Promise((resolve) => (ended = resolve));
    node.port.onmessage = (event) => (event.data ? hear(resampler.push(event.data)) : ended());
    context.createMediaStreamSource(stream).connect(node);
    node.connect(context.destination); // silent; keeps the graph running
    return async () => {
      node.port.postMessage("rest");
      await Promise.race([all, new Promise((late) => setTimeout(late, PATIENCE_MS))]);
      node.port.onmessage = null;
      await close();
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Seconds of a recording by its head, null if the browser cannot tell. */
export function durationOf(file) {
  return new Promise((resolve) => {
    const probe = document.createElement("audio");
    const address = URL.createObjectURL(file);
    const tell = (seconds) => {
      clearTimeout(late);
      URL.revokeObjectURL(address);
      resolve(Number.isFinite(seconds) ? seconds : null);
    };
    const late = setTimeout(() => tell(null), 10 * PATIENCE_MS);
    probe.preload = "metadata";
    probe.onloadedmetadata = () => tell(probe.duration);
    probe.onerror = () => tell(null);
    probe.src = address;
  });
}

/** Decode a file to at most two channels at RATE. */
export async function decodeFile(file, split) {
  const context = new OfflineAudioContext(2, 1, RATE);
  const audio = await context.decodeAudioData(await file.arrayBuffer()); // resampled to the context's rate
  const channels = Array.from({ length: Math.min(2, audio.numberOfChannels) }, (_, c) => audio.getChannelData(c));
  if (channels.length === 2 && !split) return [channels[0].map((x, i) => (x + channels[1][i]) / 2)];
  return channels;
}

/** Sixteen-bit WAV of what was heard, so that it can be played again. */
export function wavBlob(parts) {
  const samples = parts.reduce((sum, part) => sum + part.length, 0);
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); head.setUint32(4, 36 + 2 * samples, true); text(8, "WAVEfmt ");
  head.setUint32(16, 16, true); head.setUint16(20, 1, true); head.setUint16(22, 1, true);
  head.setUint32(24, RATE, true); head.setUint32(28, 2 * RATE, true); head.setUint16(32, 2, true); head.setUint16(34, 16, true);
  text(36, "data"); head.setUint32(40, 2 * samples, true);
  return new Blob([head, ...parts.map((part) => pcm16([part]))], { type: "audio/wav" });
}
