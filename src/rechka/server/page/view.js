// What one sees of a recognition: phrases with words to click, the open phrase, the waveform. Text is set as text only.

import { el } from "./dom.js";
import { clock, timedWords } from "./formats.js";
import { t } from "./words.js";

const FRAME_MS = 80; // the waveform is drawn about twelve times a second
const DOUBT = [0.9, 0.7, 0.5]; // a word is shaded one step darker below each of these confidences
const LIVE_S = 12; // the microphone's timeline starts with so much room
const AXIS = 20; // height of the timeline's scale

export class Transcript {
  /** `seek` gets the second of a chosen word, `heard` the text of every finished phrase. */
  constructor(place, seek, heard) {
    Object.assign(this, { place, seek, heard });
    place.onclick = (event) => {
      const at = this.timeOf(event.target.closest(".word, .said time"));
      if (at !== null && !String(getSelection())) this.seek(at);
    };
    place.onkeydown = (event) => this.move(event);
    this.clear();
  }

  clear() {
    this.segments = [];
    this.open = new Map();
    this.lit = [];
    this.talking = false;
    this.place.replaceChildren();
    this.place.classList.remove("talk");
  }

  /** A dialogue: the channels stand on either side. */
  talk(on) {
    this.talking = on;
    this.place.classList.toggle("talk", on);
  }

  /** Who says a phrase, for downloads; null if that is no question. */
  speaker(segment) {
    if (segment.speaker && !/^\d+$/.test(segment.speaker)) return segment.speaker;
    return segment.speaker || this.talking ? `${t("speaker")} ${segment.speaker ?? segment.channel + 1}` : null;
  }

  hint(text) {
    this.place.replaceChildren(el("p", { className: "hint", textContent: text }));
  }

  partial({ channel, start, stable, unstable }) {
    let box = this.open.get(channel);
    if (!box) {
      box = this.box({ channel, start });
      box.classList.add("now");
      this.open.set(channel, box);
      this.add(box);
    }
    box.lastChild.replaceChildren(stable, el("span", { className: "unstable", textContent: unstable }));
    this.follow(box);
  }

  final(segment) {
    this.open.get(segment.channel)?.remove();
    this.open.delete(segment.channel);
    if (!segment.text) return;
    let at = this.segments.length;
    while (at && this.segments[at - 1].start > segment.start) at--;
    this.segments.splice(at, 0, segment);
    const box = this.box(segment);
    box.segment = segment;
    for (const word of timedWords(segment)) box.lastChild.append(this.word(word), " ");
    this.add(box);
    if (!this.place.querySelector(".word[tabindex='0']")) this.place.querySelector(".word")?.setAttribute("tabindex", "0");
    this.follow(box);
    this.heard(segment.text);
  }

  refined(segment) {
    const old = [...this.place.children].find((b) => b.segment?.channel === segment.channel && b.segment?.start === segment.start);
    if (old) {
      this.segments = this.segments.filter((s) => s !== old.segment);
      old.remove();
    }
    this.final(segment);
  }

  box({ channel, start, speaker = null }) {
    const name = this.speaker({ channel, speaker });
    const box = el("p", { className: `said c${channel}` }, el("time", { textContent: clock(start) }));
    box.start = start;
    if (name) box.append(el("b", { textContent: name }));
    box.append(el("span", { className: "words" }));
    return box;
  }

  word({ word, start, end, confidence }) {
    const element = el("span", { className: "word", textContent: word, tabIndex: -1 });
    element.times = [start, end];
    if (typeof confidence === "number") {
      element.title = `${clock(start)} · ${Math.round(100 * confidence)} %`;
      const doubt = DOUBT.filter((limit) => confidence < limit).length;
      if (doubt) element.classList.add(`d${doubt}`);
    }
    return element;
  }

  timeOf(element) {
    if (!element) return null;
    return element.times ? element.times[0] : element.parentElement.start;
  }

  /** Arrows go from word to word, Enter plays; only one word is a stop of the Tab key. */
  move(event) {
    const word = event.target.closest(".word");
    if (!word) return;
    const all = [...this.place.querySelectorAll(".word")];
    const here = all.indexOf(word);
    const there = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this.seek(word.times[0]);
    else if (all[there]) this.focus(all[there]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  focus(word) {
    for (const other of this.place.querySelectorAll(".word[tabindex='0']")) other.tabIndex = -1;
    word.tabIndex = 0;
    word.focus();
  }

  add(box) {
    this.place.querySelector(".hint")?.remove();
    let before = this.place.lastElementChild;
    while (before && before.start > box.start) before = before.previousElementSibling;
    if (before) before.after(box);
    else this.place.prepend(box);
  }

  follow(box) {
    const low = box.getBoundingClientRect().bottom;
    if (low > innerHeight && low < innerHeight + 400) scrollBy({ top: low - innerHeight + 40, behavior: "smooth" });
  }

  /** Mark the words that are being played; the first of them. */
  at(seconds) {
    const now = [];
    for (const box of this.place.children) {
      if (!box.segment || box.segment.start > seconds + 1 || box.segment.end < seconds - 1) continue;
      for (const word of box.lastChild.children) if (word.times[0] <= seconds && seconds < word.times[1]) now.push(word);
    }
    for (const word of this.lit) if (!now.includes(word)) word.classList.remove("on");
    for (const word of now) word.classList.add("on");
    this.lit = now;
    return now[0] ?? null;
  }

  finish() {
    for (const box of this.open.values()) box.remove();
    this.open.clear();
    if (!this.segments.length) this.hint(t("nothing"));
  }
}

/** Loudness over time on a canvas, one lane a channel, a scale under it; without sound the phrases alone. */
export class Wave {
  constructor(canvas) {
    this.canvas = canvas;
    this.clear();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear(channels = 1, { live = false } = {}) {
    this.peaks = Array.from({ length: channels }, () => []);
    this.rest = Array.from({ length: channels }, () => [0, 0]);
    this.live = live;
    this.duration = 0;
    this.head = 0;
    this.segments = [];
    this.draw();
  }

  get span() {
    return this.live ? Math.max(LIVE_S, this.duration) : this.duration;
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
    const style = getComputedStyle(canvas);
    const pen = canvas.getContext("2d");
    const colour = (name) => style.getPropertyValue(name).trim();
    const x = (seconds) => (this.span ? (seconds / this.span) * width : 0);
    const room = height - AXIS * scale;
    const lane = room / this.peaks.length;
    pen.fillStyle = colour("--wash");
    for (const s of this.segments) {
      const c = Math.min(s.channel, this.peaks.length - 1);
      pen.fillRect(x(s.start), c * lane + 2 * scale, Math.max(scale, x(s.end) - x(s.start)), lane - 4 * scale);
    }
    for (const s of this.peaks[0].length ? [] : this.segments) {
      pen.fillStyle = colour(s.channel ? "--two" : "--one"); // no sound: the words themselves
      const middle = (Math.min(s.channel, this.peaks.length - 1) + 0.5) * lane;
      for (const w of s.words) pen.fillRect(x(w.start), middle - 3 * scale, Math.max(scale, x(w.end - w.start) - scale), 6 * scale);
    }
    this.peaks.forEach((peaks, c) => {
      const step = 3 * scale;
      const perPixel = peaks.length / Math.max(1, x(this.duration));
      pen.fillStyle = colour(c ? "--two" : "--one");
      for (let column = 0; peaks.length && column < x(this.duration); column += step) {
        const from = Math.floor(column * perPixel);
        let peak = 0;
        for (let i = from; i < Math.max(from + 1, (column + step) * perPixel) && i < peaks.length; i++) peak = Math.max(peak, peaks[i]);
        const size = Math.max(scale, Math.min(1, Math.sqrt(peak)) * lane * 0.86);
        pen.fillRect(column, c * lane + (lane - size) / 2, 2 * scale, size);
      }
    });
    this.scale(pen, { x, scale, room, ink: colour("--pale"), line: colour("--line"), font: style.fontFamily });
    if (this.duration) {
      pen.fillStyle = colour("--bad");
      pen.fillRect(Math.max(0, x(this.head) - scale), 0, 2 * scale, room);
    }
  }

  scale(pen, { x, scale, room, ink, line, font }) {
    if (!this.span) return;
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200].find((s) => x(s) > 64 * scale) ?? 14400;
    pen.font = `${11 * scale}px ${font}`;
    pen.textBaseline = "middle";
    for (let s = 0; s <= this.span; s += step) {
      pen.fillStyle = line;
      pen.fillRect(x(s), room, scale, 5 * scale);
      pen.fillStyle = ink;
      const text = clock(s);
      if (x(s) + 4 * scale + pen.measureText(text).width < pen.canvas.width) pen.fillText(text, x(s) + 4 * scale, room + 11 * scale);
    }
  }
}
