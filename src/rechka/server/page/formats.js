// Downloads, made from the segments in the page.

const pad = (value, size = 2) => String(value).padStart(size, "0");

function stamp(seconds, mark) {
  const ms = Math.round(seconds * 1000);
  return `${pad(Math.floor(ms / 3600000))}:${pad(Math.floor(ms / 60000) % 60)}:${pad(Math.floor(ms / 1000) % 60)}${mark}${pad(ms % 1000, 3)}`;
}

const line = (segment) => (segment.speaker ? `${segment.speaker}: ${segment.text}` : segment.text);

export const FORMATS = {
  txt: (segments) => segments.map((s) => line(s) + "\n").join(""),
  srt: (segments) => segments.map((s, i) => `${i + 1}\n${stamp(s.start, ",")} --> ${stamp(s.end, ",")}\n${line(s)}\n\n`).join(""),
  vtt: (segments) => "WEBVTT\n\n" + segments.map((s) => `${stamp(s.start, ".")} --> ${stamp(s.end, ".")}\n${line(s).replaceAll("-->", "→")}\n\n`).join(""),
  json: (segments, about) => JSON.stringify({ ...about, text: segments.map((s) => s.text).join(" "), segments }, null, 1) + "\n",
};

export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const clock = (seconds) => `${Math.floor(seconds / 60)}:${pad(Math.floor(seconds) % 60)}`;
