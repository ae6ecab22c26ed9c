// The page: a file or the microphone in, a transcript out.

import { RATE, decodeFile, openMicrophone, wavBlob } from "./audio.js";
import { FORMATS, clock, download } from "./formats.js";
import { Recognition } from "./session.js";
import { Transcript, Wave } from "./view.js";
import { applyLanguage, otherLanguage, t } from "./words.js";

const $ = (id) => document.getElementById(id);
const PAST = "rechka.past";
const PAST_KEPT = 20;

const audio = $("audio");
const wave = new Wave($("wave"));
const transcript = new Transcript($("text"), (seconds) => {
  audio.currentTime = seconds;
  audio.play();
});
let current = null; // the Recognition under way
let stopMic = null;
let about = {};

function state(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

function listen(source) {
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.src = source ? URL.createObjectURL(source) : "";
}

function begin(name, channels) {
  current?.close();
  transcript.clear();
  transcript.talk(channels > 1);
  wave.clear(channels);
  $("player").hidden = false;
  about = { name, model: "", language: "ru", duration: 0 };
  const hotwords = $("hotwords").value.split(",").map((word) => word.trim()).filter(Boolean);
  const options = { channels, model: $("model").value, hotwords, key: $("key").value };
  state(t("connecting"));
  current = new Recognition(options, hear);
  return current;
}

function hear(message) {
  if (message.type === "ready") about.model = message.model;
  else if (message.type === "partial") transcript.partial(message);
  else if (message.type === "final" || message.type === "refined") {
    const { type, keep, ...segment } = message;
    if (type === "final") transcript.final(segment);
    else transcript.refined(segment);
    wave.segments = transcript.segments;
    wave.draw();
  } else if (message.type === "cursor" && !stopMic) state(`${t("recognising")} ${clock(message.done)}`);
  else if (message.type === "done") {
    about.duration = message.duration;
    transcript.finish();
    state(t("done"));
    remember();
  } else if (message.type === "error") state(message.remedy ? `${message.message}; ${message.remedy}` : message.message, true);
  else if (message.type === "lost" || message.type === "going_away") {
    state(t("lost"), true);
    micOff();
  }
}

async function useFile(file) {
  await micOff();
  state(t("reading"));
  let channels;
  try {
    channels = await decodeFile(file, $("split").checked);
  } catch {
    state(t("noAudio"), true);
    return;
  }
  const recognition = begin(file.name, channels.length);
  listen(file);
  wave.push(channels, RATE);
  try {
    await recognition.ready;
  } catch {
    return; // hear() told why
  }
  state(t("recognising"));
  await recognition.sendAll(channels);
}

async function micOn() {
  if (!navigator.mediaDevices) {
    state(t("secure"), true);
    return;
  }
  const parts = [];
  const recognition = begin("microphone", 1);
  transcript.hint(t("silence"));
  listen(null);
  try {
    const stop = await openMicrophone((samples) => {
      parts.push(samples);
      wave.push([samples], RATE);
      $("clock").textContent = clock(wave.duration);
      recognition.send([samples]);
    });
    stopMic = async () => {
      await stop();
      recognition.finish();
      listen(wavBlob(parts));
    };
  } catch {
    recognition.close();
    state(t("noMic"), true);
    return;
  }
  $("mic").setAttribute("aria-pressed", "true");
  label();
  await recognition.ready.then(() => state(t("listening")), () => micOff());
}

async function micOff() {
  const stop = stopMic;
  stopMic = null;
  $("mic").setAttribute("aria-pressed", "false");
  label();
  if (stop) await stop();
}

function label() {
  $("micText").textContent = t(stopMic ? "micStop" : "mic");
  $("play").textContent = audio.paused ? `▶ ${t("play")}` : `❚❚ ${t("pause")}`;
  $("language").textContent = t("other");
}

function past() {
  try {
    const found = JSON.parse(localStorage.getItem(PAST) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function remember() {
  if (!transcript.segments.length) return;
  const item = { when: Date.now(), about, segments: transcript.segments };
  try {
    localStorage.setItem(PAST, JSON.stringify([item, ...past()].slice(0, PAST_KEPT)));
  } catch {
    // The browser's space is used up: what is on the page stays there.
  }
  showPast();
}

function showPast() {
  const items = past();
  $("past").hidden = !items.length;
  $("pastList").replaceChildren(
    ...items.map((item) => {
      const button = document.createElement("button");
      const time = document.createElement("time");
      time.textContent = new Date(item.when).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
      button.append(time, `${item.about.name}: ${item.segments.map((s) => s.text).join(" ")}`);
      button.onclick = () => {
        current?.close();
        listen(null);
        transcript.clear();
        transcript.talk(item.segments.some((s) => s.channel));
        wave.clear();
        about = item.about;
        $("player").hidden = false;
        for (const segment of item.segments) transcript.final(segment);
        scrollTo({ top: 0, behavior: "smooth" });
      };
      const row = document.createElement("li");
      row.append(button);
      return row;
    }),
  );
}

async function models() {
  const headers = $("key").value ? { Authorization: `Bearer ${$("key").value}` } : {};
  const answer = await fetch("v1/models", { headers }).catch(() => null);
  if (!answer?.ok) return;
  const names = (await answer.json()).data.map((model) => model.id).filter((name) => name !== "whisper-1");
  $("model").replaceChildren(...[...new Set(names)].map((name) => new Option(name, name)));
}

$("file").onchange = (event) => event.target.files[0] && useFile(event.target.files[0]);
$("mic").onclick = () => (stopMic ? micOff() : micOn());
$("key").onchange = models;
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
    if (name === "drop" && event.dataTransfer.files[0]) useFile(event.dataTransfer.files[0]);
  });
}
$("drop").onkeydown = (event) => {
  if (event.key === "Enter" || event.key === " ") $("file").click();
};
$("play").onclick = () => (audio.paused ? audio.play() : audio.pause());
$("wave").onclick = (event) => {
  if (wave.duration) audio.currentTime = (event.offsetX / event.target.clientWidth) * wave.duration;
};
$("wave").onkeydown = (event) => {
  const jump = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
  if (jump) audio.currentTime = Math.max(0, audio.currentTime + jump);
};
audio.onplay = audio.onpause = label;
audio.ontimeupdate = () => {
  wave.head = audio.currentTime;
  wave.draw();
  transcript.at(audio.currentTime);
  $("clock").textContent = clock(audio.currentTime);
};
$("forget").onclick = () => {
  localStorage.removeItem(PAST);
  showPast();
};
$("language").onclick = () => {
  applyLanguage(otherLanguage());
  label();
};
for (const [kind, make] of Object.entries(FORMATS)) {
  const button = document.createElement("button");
  button.textContent = kind.toUpperCase();
  button.onclick = () => download(`${about.name || "rechka"}.${kind}`, make(transcript.segments, about));
  $("saves").append(button);
}
applyLanguage();
label();
showPast();
models();
