// Requests to the server this page came from, with the key if it wants one.

const KEY = "rechka.key";
const TRIES = 3;
const RETRY_MS = 1500;
const has = new Set(document.body.dataset.server.split(" ").filter(Boolean));

/** What the server has: "keys", "jobs", "history", "texts" (the history has them), "live" (of live sessions, too). */
export const serverHas = (feature) => has.has(feature);

/** The key stays in this tab's storage: another tab, and tomorrow's, ask for it again. */
export const key = {
  get: () => (serverHas("keys") ? (sessionStorage.getItem(KEY) ?? "") : ""),
  set: (text) => sessionStorage.setItem(KEY, text),
};

/** Nothing can be asked before there is a key. */
export const mayAsk = () => !serverHas("keys") || key.get() !== "";

export class Refusal extends Error {
  constructor(status, { code = "", message = "", remedy = "" } = {}) {
    super(message || `HTTP ${status}`);
    Object.assign(this, { status, code, remedy });
  }
}

const place = (path) => new URL(path, document.baseURI);

function headers(more = {}) {
  return key.get() ? { Authorization: `Bearer ${key.get()}`, ...more } : more;
}

function refusal(status, text) {
  try {
    const { error } = JSON.parse(text);
    return new Refusal(status, error);
  } catch {
    return new Refusal(status); // a proxy's page, or nothing
  }
}

/** The JSON of an answer, null of an empty one. Throws a Refusal; its code is "lost" without an answer. */
export async function ask(path, { method = "GET", body } = {}) {
  const sent = body === undefined ? {} : { "Content-Type": "application/json" };
  const given = { method, headers: headers(sent), body: body === undefined ? undefined : JSON.stringify(body) };
  const answer = await fetch(place(path), given).catch(() => null);
  if (!answer) throw new Refusal(0, { code: "lost" });
  const text = await answer.text();
  if (!answer.ok) throw refusal(answer.status, text);
  return text ? JSON.parse(text) : null;
}

/** Where to connect for a live session. A key may not stand in an address, so it is changed for a token first. */
export async function streamPlace() {
  const found = place("v1/stream");
  found.protocol = found.protocol === "https:" ? "wss:" : "ws:";
  if (key.get()) {
    const { token } = await ask("v1/token", { method: "POST", body: { seconds: 60, scopes: ["stream"] } });
    found.searchParams.set("token", token);
  }
  return found;
}

/** Send a file as a job; `tell` gets the share that is sent. A lost answer is asked for again by the same key. */
export async function sendJob(file, options, tell) {
  const found = place("v1/jobs");
  for (const [name, value] of options) found.searchParams.append(name, value);
  const random = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0"));
  const given = headers({ "Content-Type": file.type || "application/octet-stream", "Idempotency-Key": random.join("") });
  for (let left = TRIES; ; ) {
    try {
      return await post(found, given, file, tell);
    } catch (error) {
      if (error.code !== "lost" || !--left) throw error;
      await new Promise((again) => setTimeout(again, RETRY_MS));
    }
  }
}

function post(where, given, file, tell) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much is sent
    request.open("POST", where);
    for (const [name, value] of Object.entries(given)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && tell(event.loaded / event.total);
    request.onerror = () => reject(new Refusal(0, { code: "lost" }));
    request.onload = () => {
      if (request.status >= 300) reject(refusal(request.status, request.responseText));
      else resolve(JSON.parse(request.responseText));
    };
    request.send(file);
  });
}
