// Downloads, made from the segments in the page. Cues are cut as rechka.formats does: two lines of 42 letters, 7 seconds.

const MAX_LINE = 42;
const MAX_CUE_S = 7;

const pad = (value, size = 2) => String(value).padStart(size, "0");

function stamp(seconds, mark) {
  const ms = Math.round(seconds * 1000);
  return `${pad(Math.floor(ms / 3600000))}:${pad(Math.floor(ms / 60000) % 60)}:${pad(Math.floor(ms / 1000) % 60)}${mark}${pad(ms % 1000, 3)}`;
}

/** The words of a phrase's text with times and confidence, also where the text was rewritten since. */
export function timedWords({ text, words, start, end }) {
  const texts = text.split(/\s+/).filter(Boolean);
  if (texts.length === words.length) return texts.map((word, i) => ({ ...words[i], word }));
  const letter = (end - start) / Math.max(1, texts.join("").length);
  let at = start;
  return texts.map((word) => ({ word, start: at, end: (at += letter * word.length), confidence: null }));
}

function wrap(texts) {
  const whole = texts.join(" ");
  if (whole.length <= MAX_LINE || texts.length < 2) return whole;
  let best = 1;
  const longer = (cut) => Math.max(texts.slice(0, cut).join(" ").length, texts.slice(cut).join(" ").length);
  for (let cut = 2; cut < texts.length; cut++) if (longer(cut) < longer(best)) best = cut;
  return `${texts.slice(0, best).join(" ")}\n${texts.slice(best).join(" ")}`;
}

function cues(segments) {
  return segments.flatMap((segment) => {
    const runs = [];
    for (const word of timedWords(segment)) {
      const run = runs.at(-1);
      const full = !run || word.end - run[0].start > MAX_CUE_S
        || wrap([...run, word].map((w) => w.word)).split("\n").some((line) => line.length > MAX_LINE);
      if (full) runs.push([word]);
      else run.push(word);
    }
    return runs.map((run) => ({ start: run[0].start, end: run.at(-1).end, text: wrap(run.map((w) => w.word)), segment }));
  });
}

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** Texts of the four formats; `name` gives a segment's speaker, or null. */
export const FORMATS = {
  txt: (segments, about, name) => segments.map((s) => `${named(name(s))}${s.text}\n`).join(""),
  srt: (segments, about, name) => cues(segments)
    .map((cue, i) => `${i + 1}\n${stamp(cue.start, ",")} --> ${stamp(cue.end, ",")}\n${named(name(cue.segment))}${cue.text}\n\n`).join(""),
  vtt: (segments, about, name) => "WEBVTT\n\n" + cues(segments).map((cue) => {
    const speaker = name(cue.segment);
    return `${stamp(cue.start, ".")} --> ${stamp(cue.end, ".")}\n${speaker ? `<v ${escape(speaker)}>` : ""}${escape(cue.text)}\n\n`;
  }).join(""),
  json: (segments, { model, language, duration }) =>
    JSON.stringify({ model, language, duration, text: segments.map((s) => s.text).join(" "), segments }, null, 2) + "\n",
};

const named = (speaker) => (speaker ? `${speaker}: ` : "");

export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** M:SS, or H:MM:SS. */
export function clock(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(Math.floor(seconds) % 60)}`;
}
