// What one sees of a recognition: phrases with words to click, the open phrase, the waveform. Text is set as text only.

import { clock } from "./formats.js";
import { t } from "./words.js";

const FRAME_MS = 80; // the waveform is drawn about twelve times a second
const DOUBT = [0.75, 0.5]; // word confidences below these are underlined with dots, with waves

export class Transcript {
  constructor(place, seek) {
    this.place = place;
    this.seek = seek;
    this.clear();
  }

  clear() {
    this.segments = [];
    this.open = new Map();
    this.words = [];
    this.place.replaceChildren();
    this.place.classList.remove("talk");
  }

  talk(on) {
    this.place.classList.toggle("talk", on);
  }

  hint(text) {
    const element = document.createElement("p");
    element.className = "hint";
    element.textContent = text;
    this.place.replaceChildren(element);
  }

  partial({ channel, start, stable, unstable }) {
    let box = this.open.get(channel);
    if (!box) {
      box = this.box(channel, start);
      box.classList.add("now");
      this.open.set(channel, box);
      this.add(box);
    }
    const pale = document.createElement("span");
    pale.className = "unstable";
    pale.textContent = unstable;
    box.lastChild.replaceChildren(stable, pale);
    this.follow(box);
  }

  final(segment) {
    this.open.get(segment.channel)?.remove();
    this.open.delete(segment.channel);
    if (!segment.text) return;
    this.segments.push(segment);
    this.segments.sort((a, b) => a.start - b.start || a.channel - b.channel);
    const box = this.box(segment.channel, segment.start);
    box.segment = segment;
    for (const word of segment.words) box.lastChild.append(this.word(word), " ");
    if (!segment.words.length) box.lastChild.textContent = segment.text;
    this.add(box);
    this.follow(box);
  }

  refined(segment) {
    const old = [...this.place.children].find((b) => b.segment?.channel === segment.channel && b.segment?.start === segment.start);
    if (old) {
      this.segments = this.segments.filter((s) => s !== old.segment);
      old.remove();
    }
    this.final(segment);
  }

  box(channel, start) {
    const box = document.createElement("p");
    box.className = `said c${channel}`;
    box.start = start;
    const time = document.createElement("time");
    time.textContent = clock(start);
    box.append(time, document.createElement("span"));
    return box;
  }

  word({ word, start, end, confidence }) {
    const element = document.createElement("span");
    element.className = "word";
    element.textContent = word;
    element.tabIndex = 0;
    element.times = [start, end];
    if (confidence !== null) {
      element.title = `${clock(start)} · ${Math.round(100 * confidence)} %`;
      if (confidence < DOUBT[0]) element.classList.add(confidence < DOUBT[1] ? "d2" : "d1");
    }
    element.onclick = () => this.seek(start);
    element.onkeydown = (event) => {
      if (event.key === "Enter") this.seek(start);
    };
    this.words.push(element);
    return element;
  }

  add(box) {
    this.place.querySelector(".hint")?.remove();
    const after = [...this.place.children].find((other) => other.start > box.start);
    this.place.insertBefore(box, after ?? null);
  }

  follow(box) {
    const low = box.getBoundingClientRect().bottom;
    if (low > innerHeight && low < innerHeight + 400) scrollBy({ top: low - innerHeight + 40, behavior: "smooth" });
  }

  /** Mark the word that is being played. */
  at(seconds) {
    for (const element of this.words) {
      element.classList.toggle("on", element.times[0] <= seconds && seconds < element.times[1]);
    }
  }

  finish() {
    for (const box of this.open.values()) box.remove();
    this.open.clear();
    if (!this.segments.length) this.hint(t("nothing"));
  }
}

/** Loudness over time on a canvas, one lane a channel; phrases lie under it, the playhead over it. */
export class Wave {
  constructor(canvas) {
    this.canvas = canvas;
    this.clear();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear(channels = 1) {
    this.peaks = Array.from({ length: channels }, () => []);
    this.rest = Array.from({ length: channels }, () => [0, 0]);
    this.duration = 0;
    this.head = 0;
    this.segments = [];
  }

  push(channels, rate) {
    const size = rate / 50; // a peak every 20 ms
    channels.forEach((samples, c) => {
      let [count, peak] = this.rest[c];
      for (const sample of samples) {
        peak = Math.max(peak, Math.abs(sample));
        if (++count >= size) {
          this.peaks[c].push(peak);
          count = 0;
          peak = 0;
        }
      }
      this.rest[c] = [count, peak];
    });
    this.duration += channels[0].length / rate;
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = setTimeout(() => {
      this.waiting = 0;
      requestAnimationFrame(() => this.paint());
    }, FRAME_MS);
  }

  paint() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const width = (canvas.width = canvas.clientWidth * scale);
    const height = (canvas.height = canvas.clientHeight * scale);
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    const x = (seconds) => (this.duration ? (seconds / this.duration) * width : 0);
    pen.fillStyle = colour("--wash");
    for (const s of this.segments) pen.fillRect(x(s.start), 0, Math.max(1, x(s.end) - x(s.start)), height);
    const lane = height / this.peaks.length;
    this.peaks.forEach((peaks, c) => {
      pen.fillStyle = colour(c ? "--two" : "--one");
      for (let column = 0; column < width; column += 2 * scale) {
        const from = Math.floor((column / width) * peaks.length);
        const to = Math.max(from + 1, Math.floor(((column + 2 * scale) / width) * peaks.length));
        let peak = 0;
        for (let i = from; i < to && i < peaks.length; i++) peak = Math.max(peak, peaks[i]);
        const size = Math.max(scale, Math.sqrt(peak) * lane * 0.92);
        pen.fillRect(column, c * lane + (lane - size) / 2, 1.4 * scale, size);
      }
    });
    pen.fillStyle = colour("--bad");
    pen.fillRect(x(this.head) - scale, 0, 2 * scale, height);
  }
}
