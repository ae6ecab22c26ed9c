// One recognition over the native protocol (/v1/stream); docs/server.md describes its messages.

import { streamPlace } from "./api.js";
import { RATE, pcm16 } from "./audio.js";

const AHEAD_BYTES = 1 << 20; // unsent bytes at which a file waits for the network
const PIECE = RATE / 5;

export class Recognition {
  /** `tell` gets every message of the server, and {type: "lost"} if the connection breaks. */
  constructor(options, tell) {
    this.tell = tell;
    this.over = false;
    this.waiting = []; // what was said before the server is ready
    this.socket = null;
    this.ready = this.open(options);
    this.ready.catch(() => {}); // whoever waits is told; nobody has to wait
  }

  async open({ channels, model, hotwords, punctuate }) {
    let place;
    try {
      place = await streamPlace();
    } catch (error) {
      this.end({ type: "error", fatal: true, code: error.code, message: error.message, remedy: error.remedy });
      throw error;
    }
    if (this.over) throw new Error("closed");
    this.socket = new WebSocket(place);
    this.socket.binaryType = "arraybuffer";
    return new Promise((resolve, reject) => {
      this.socket.onopen = () => {
        const start = { type: "start", sample_rate: RATE, encoding: "s16le", channels, interleaved: true };
        if (model) start.model = model;
        if (hotwords.length) start.hotwords = hotwords;
        if (punctuate) start.punctuate = true;
        this.socket.send(JSON.stringify(start));
      };
      this.socket.onmessage = (event) => {
        const message = JSON.parse(event.data);
        if (message.type === "ready") {
          for (const data of this.waiting) this.socket.send(data);
          this.waiting = null;
          resolve(message);
        }
        if (message.type === "done" || message.type === "going_away" || (message.type === "error" && message.fatal)) {
          reject(new Error(message.message));
          this.end(message);
        } else if (!this.over) this.tell(message);
      };
      this.socket.onclose = () => {
        reject(new Error("closed"));
        this.end({ type: "lost" });
      };
    });
  }

  end(message) {
    if (!this.over) {
      this.over = true;
      this.tell(message);
    }
  }

  put(data) {
    if (this.over) return;
    if (this.waiting) this.waiting.push(data);
    else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
  }

  send(channels) {
    if (channels[0].length) this.put(pcm16(channels));
  }

  finish() {
    this.put('{"type":"finish"}');
  }

  /** Send whole recordings as fast as the server takes them. */
  async sendAll(channels) {
    for (let at = 0; at < channels[0].length && !this.over; at += PIECE) {
      while (this.socket.bufferedAmount > AHEAD_BYTES && !this.over) await new Promise((next) => setTimeout(next, 30));
      this.send(channels.map((channel) => channel.subarray(at, at + PIECE)));
    }
    this.finish();
  }

  /** Go without a word. */
  close() {
    this.over = true;
    this.socket?.close();
  }
}
