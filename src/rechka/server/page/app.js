// The page: a file or the microphone in, a transcript out.

import { ask, key, mayAsk, serverHas } from "./api.js";
import { RATE, decodeFile, durationOf, openMicrophone, wavBlob } from "./audio.js";
import { el } from "./dom.js";
import { FORMATS, clock, download } from "./formats.js";
import { Jobs } from "./jobs.js";
import { Past, browserPast, serverPast } from "./past.js";
import { Recognition } from "./session.js";
import { Transcript, Wave } from "./view.js";
import { applyLanguage, otherLanguage, t, trouble } from "./words.js";

const $ = (id) => document.getElementById(id);
const SETTINGS = "rechka.settings";
const CHOSEN = ["punctuate", "split", "queue", "sure", "hotwords"]; // what the browser remembers
const LONG_BYTES = 30 << 20; // larger or longer recordings are jobs where the server has them
const LONG_S = 600;
const JUMP_S = 2;
const SAVED_MS = 300; // the server writes its history after the last message

const audio = $("audio");
const wave = new Wave($("wave"));
const transcript = new Transcript($("text"), seek, (text) => ($("heard").textContent = text));
const fail = (error) => state(() => trouble(error), true);
const jobs = new Jobs($("jobs"), {
  fail,
  ended: () => history?.refresh(),
  elsewhere: () => serverHas("texts") && !history.refused,
  show: (found, job, file) => show(found, { name: job.name, file }),
});
const opened = (found, line) => show(found, { name: line.name, at: line.at, file: jobs.files.get(line.id) });
const history = serverHas("history") ? new Past($("history"), "history", serverPast, opened, fail) : null;
const recent = serverHas("live") ? null : new Past($("recent"), "recent", browserPast, opened, fail);
let current = null; // the Recognition under way
let stopMic = null;
let about = {};
let turn = 0; // of whatever was begun last; what was begun before it stays silent

let told = { make: () => "", bad: false };
function state(make, bad = false) {
  told = { make, bad };
  $("state").textContent = make();
  $("state").classList.toggle("bad", bad);
}

function progress(share) {
  $("progress").hidden = share === null;
  if (share !== null) $("progress").value = share;
}

function listen(source) {
  audio.pause();
  if (audio.src) URL.revokeObjectURL(audio.src);
  if (source) audio.src = URL.createObjectURL(source);
  else audio.removeAttribute("src");
  label();
}

function seek(seconds) {
  if (!audio.hasAttribute("src")) return head(seconds);
  audio.currentTime = seconds;
  audio.play().catch(() => {}); // a moment later another recording was chosen
}

function head(seconds) {
  wave.head = seconds;
  wave.draw();
  $("clock").textContent = clock(seconds);
  $("wave").setAttribute("aria-valuenow", Math.round(seconds));
  $("wave").setAttribute("aria-valuemax", Math.round(wave.duration));
  $("wave").setAttribute("aria-valuetext", `${clock(seconds)} / ${clock(wave.duration)}`);
  return transcript.at(seconds);
}

/** An empty place for one recording. */
function clear(name, channels, live = false) {
  current?.close();
  current = null;
  transcript.clear();
  transcript.talk(channels > 1);
  wave.clear(channels, { live });
  progress(null);
  $("player").hidden = false;
  $("name").textContent = name;
  document.body.classList.add("busy");
  $("more").open = false;
  about = { name, model: "", language: "ru", duration: 0 };
}

const hotwords = () => $("hotwords").value.split(",").map((word) => word.trim()).filter(Boolean);

function begin(name, channels, live) {
  clear(name, channels, live);
  state(() => t("connecting"));
  const recognition = new Recognition(
    { channels, model: $("model").value, hotwords: hotwords(), punctuate: $("punctuate").checked },
    (message) => recognition === current && hear(message),
  );
  current = recognition;
  return recognition;
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
  } else if (message.type === "cursor" && !stopMic) {
    state(() => `${t("recognising")} ${clock(message.done)} / ${clock(wave.duration)}`);
    progress(Math.min(1, message.done / wave.duration));
  } else if (message.type === "done") {
    about.duration = message.duration;
    state(() => t("done"));
    over();
  } else if (message.type === "error") {
    fail(message);
    if (message.fatal) over();
  } else if (message.type === "lost" || message.type === "going_away") {
    state(() => t(message.type === "lost" ? "lost" : "away"), true);
    over();
  }
}

/** A recognition has ended, however it did: what was said is kept. */
function over() {
  progress(null);
  micOff();
  about.duration ||= wave.duration;
  transcript.finish();
  if (transcript.segments.length && recent) browserPast.add(about, transcript.segments);
  recent?.refresh();
  if (serverHas("live")) setTimeout(() => history.refresh(), SAVED_MS);
}

/** A transcript from a list, with its sound if the file is at hand. */
function show(found, { name, file = null, at = null }) {
  turn++;
  micOff();
  const lanes = 1 + Math.max(0, ...found.segments.map((segment) => segment.channel));
  clear(name, lanes);
  listen(file);
  about = { name, model: found.model, language: found.language, duration: found.duration };
  wave.duration = found.duration || Math.max(0, ...found.segments.map((segment) => segment.end));
  for (const segment of found.segments) transcript.final(segment);
  transcript.finish();
  wave.segments = transcript.segments;
  state(() => (file ? "" : t("silent")));
  const word = head(at ?? 0);
  if (at) (word ?? $("text")).scrollIntoView({ block: "center" });
  else scrollTo({ top: 0, behavior: "smooth" });
}

async function useFiles(files) {
  await micOff();
  if (serverHas("jobs") && (files.length > 1 || $("queue").checked)) for (const file of files) await sendAway(file);
  else if (files.length) await useFile(files[0]);
  $("file").value = ""; // the same file may be chosen again
}

async function sendAway(file) {
  state(() => t("sending"));
  const options = [["channels", $("split").checked ? "split" : "mix"], ...hotwords().map((word) => ["hotwords", word])];
  if ($("punctuate").checked) options.push(["punctuate", "true"]);
  if ($("model").value) options.push(["model", $("model").value]);
  try {
    await jobs.add(file, options);
    state(() => t("queued"));
  } catch (error) {
    fail(error);
  }
}

async function useFile(file) {
  const mine = ++turn;
  state(() => t("reading"));
  const long = file.size > LONG_BYTES || ((await durationOf(file)) ?? 0) > LONG_S;
  if (long && serverHas("jobs")) return sendAway(file);
  let channels;
  try {
    channels = await decodeFile(file, $("split").checked);
  } catch {
    if (serverHas("jobs")) return sendAway(file); // the server reads more formats
    if (mine === turn) state(() => t("noAudio"), true);
    return;
  }
  if (mine !== turn) return;
  const recognition = begin(file.name, channels.length);
  listen(file);
  wave.push(channels, RATE);
  try {
    await recognition.ready;
  } catch {
    return; // hear() told why
  }
  state(() => t("recognising"));
  progress(0);
  await recognition.sendAll(channels);
}

async function micOn() {
  turn++;
  if (!navigator.mediaDevices) {
    state(() => t("secure"), true);
    return;
  }
  const parts = [];
  const recognition = begin(t("microphone"), 1, true);
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
      if (recognition !== current) return;
      listen(wavBlob(parts));
      wave.live = false;
      wave.draw();
    };
  } catch {
    recognition.close();
    state(() => t("noMic"), true);
    return;
  }
  if (recognition !== current || recognition.over) {
    await micOff();
    return;
  }
  label();
  await recognition.ready.then(() => stopMic && state(() => t("listening")), () => micOff());
}

async function micOff() {
  const stop = stopMic;
  stopMic = null;
  label();
  if (stop) await stop();
}

function label() {
  $("mic").setAttribute("aria-pressed", String(Boolean(stopMic)));
  $("micText").textContent = t(stopMic ? "micStop" : "mic");
  $("play").textContent = audio.paused ? `▶ ${t("play")}` : `❚❚ ${t("pause")}`;
  $("play").disabled = !audio.hasAttribute("src");
  $("language").textContent = t("other");
}

function save(kind) {
  const text = FORMATS[kind](transcript.segments, about, (segment) => transcript.speaker(segment));
  download(`${about.name || "rechka"}.${kind}`, text);
}

async function copy(event) {
  const text = FORMATS.txt(transcript.segments, about, (segment) => transcript.speaker(segment));
  await navigator.clipboard.writeText(text);
  const button = event.target;
  button.textContent = t("copied");
  setTimeout(() => (button.textContent = t("copy")), 1500);
}

function saves() {
  const copied = el("button", { type: "button", textContent: t("copy"), onclick: copy, hidden: !navigator.clipboard });
  const kinds = Object.keys(FORMATS).map((kind) =>
    el("button", { type: "button", textContent: kind.toUpperCase(), onclick: () => save(kind) }));
  $("saves").replaceChildren(copied, ...kinds);
}

/** Everything that is asked for with the key: models, jobs, history. */
async function enter() {
  $("keyForm").hidden = !serverHas("keys");
  if (!mayAsk()) return $("key").focus();
  if (serverHas("jobs")) jobs.refresh();
  history?.refresh();
  try {
    const { data } = await ask("v1/models");
    const chosen = $("model").value;
    $("model").replaceChildren(...[...new Set(data.map((model) => model.id))].map((name) => new Option(name, name)));
    if (chosen) $("model").value = chosen;
    if (serverHas("keys")) state(() => t("keyGood"));
  } catch (error) {
    fail(error);
  }
}

function remembered() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(SETTINGS)) ?? {};
  } catch {
    localStorage.removeItem(SETTINGS);
  }
  for (const id of CHOSEN) {
    const box = $(id).type === "checkbox" ? "checked" : "value";
    if (typeof kept[id] === typeof $(id)[box]) $(id)[box] = kept[id];
    $(id).addEventListener("change", () => {
      kept[id] = $(id)[box];
      localStorage.setItem(SETTINGS, JSON.stringify(kept));
    });
  }
}

function shortcut(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const busy = event.target.closest("input, select, textarea, button, summary, [role=slider], .word");
  const typing = event.target.closest("input:not([type=checkbox]), select");
  const search = document.querySelector("aside section:not([hidden]) input[type=search]");
  const key = event.code === "KeyM" ? "m" : event.key; // by its place, in whatever layout
  if (key === " " && !busy) $("play").click();
  else if ((key === "ArrowLeft" || key === "ArrowRight") && !busy) jump(key === "ArrowLeft" ? -JUMP_S : JUMP_S);
  else if (key === "m" && !typing) $("mic").click();
  else if (key === "Escape" && stopMic) micOff();
  else if (key === "/" && !typing && search) search.focus();
  else return;
  event.preventDefault();
}

function jump(seconds) {
  if (audio.hasAttribute("src")) audio.currentTime = Math.max(0, audio.currentTime + seconds);
}

$("file").onchange = (event) => useFiles([...event.target.files]);
$("file").multiple = serverHas("jobs");
$("mic").onclick = () => (stopMic ? micOff() : micOn());
$("keyForm").onsubmit = (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  enter();
};
for (const [name, hovers] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", hovers);
    if (name === "drop" && event.dataTransfer.files.length) useFiles([...event.dataTransfer.files]);
  });
}
$("play").onclick = () => (audio.paused ? audio.play() : audio.pause());
$("wave").onclick = (event) => {
  if (wave.duration) seek(Math.min(wave.duration, (event.offsetX / event.target.clientWidth) * wave.span));
};
$("wave").onkeydown = (event) => {
  const { key } = event;
  if (key === "ArrowLeft" || key === "ArrowRight") jump(key === "ArrowLeft" ? -JUMP_S : JUMP_S);
  else if (key === "Home") seek(0);
  else if (key === "Enter" || key === " ") $("play").click();
  else return;
  event.preventDefault();
  event.stopPropagation();
};
audio.onplay = audio.onpause = label;
let last = null;
audio.ontimeupdate = () => {
  const word = head(audio.currentTime);
  if (word && word.parentElement !== last && !audio.paused) word.parentElement.scrollIntoView({ block: "nearest", behavior: "smooth" });
  last = word?.parentElement ?? last;
};
$("sure").addEventListener("change", () => $("text").classList.toggle("sure", $("sure").checked));
$("language").onclick = () => {
  applyLanguage(otherLanguage());
  speak();
};
addEventListener("keydown", shortcut);

/** Everything that is not named in the markup, in the language of now. */
function speak() {
  label();
  saves();
  state(told.make, told.bad);
  jobs.label();
  for (const past of [history, recent]) {
    past?.label();
    if (past === recent || mayAsk()) past?.refresh();
  }
}

remembered();
$("text").classList.toggle("sure", $("sure").checked);
$("more").open = innerWidth > 900;
$("queueRow").hidden = !serverHas("jobs");
$("history").hidden = !serverHas("history");
$("key").value = key.get();
applyLanguage();
speak();
enter();
