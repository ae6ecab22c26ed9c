// One recognition over the native protocol (/v1/stream); docs/server.md describes its messages.

import { RATE, pcm16 } from "./audio.js";

const AHEAD_BYTES = 1 << 20; // unsent bytes at which a file waits for the network
const PIECE = RATE / 5;

export class Recognition {
  /** `tell` gets every message of the server, and {type: "lost"} if the connection breaks. */
  constructor({ channels, model, hotwords, key }, tell) {
    const place = new URL("v1/stream", location.href);
    place.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (key) place.searchParams.set("token", key);
    this.channels = channels;
    this.over = false;
    this.socket = new WebSocket(place);
    this.socket.binaryType = "arraybuffer";
    this.ready = new Promise((resolve, reject) => {
      this.socket.onopen = () => {
        const start = { type: "start", sample_rate: RATE, encoding: "s16le", channels, interleaved: true };
        if (model) start.model = model;
        if (hotwords.length) start.hotwords = hotwords;
        this.socket.send(JSON.stringify(start));
      };
      this.socket.onmessage = (event) => {
        const message = JSON.parse(event.data);
        if (message.type === "ready") resolve(message);
        if (message.type === "error" && message.fatal) reject(new Error(message.message));
        if (message.type === "done" || (message.type === "error" && message.fatal)) this.over = true;
        tell(message);
      };
      this.socket.onclose = () => {
        reject(new Error("closed"));
        if (!this.over) tell({ type: "lost" });
        this.over = true;
      };
    });
    this.ready.catch(() => {}); // whoever waits is told; nobody has to wait
  }

  send(channels) {
    if (this.socket.readyState === WebSocket.OPEN && channels[0].length) this.socket.send(pcm16(channels));
  }

  finish() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"type":"finish"}');
  }

  /** Send whole recordings as fast as the server takes them. */
  async sendAll(channels) {
    for (let at = 0; at < channels[0].length && !this.over; at += PIECE) {
      while (this.socket.bufferedAmount > AHEAD_BYTES && !this.over) await new Promise((next) => setTimeout(next, 30));
      this.send(channels.map((channel) => channel.subarray(at, at + PIECE)));
    }
    this.finish();
  }

  close() {
    this.over = true;
    this.socket.close();
  }
}
