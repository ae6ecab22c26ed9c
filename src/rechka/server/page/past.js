// What was recognised before: the server's history and the browser's own, shown alike.

import { ask } from "./api.js";
import { el, sureButton } from "./dom.js";
import { clock } from "./formats.js";
import { t, trouble, when } from "./words.js";

const KEPT = "rechka.past";
const MOST = 20;
const TYPING_MS = 250;
const AROUND = 60; // letters before a hit

/** The server's history (docs/jobs.md). A transcript is {model, language, duration, segments}. */
export const serverPast = {
  async list(query, after) {
    const asked = new URLSearchParams({ limit: MOST });
    if (query) asked.set("q", query);
    if (after) asked.set("after", after);
    const { data, next } = await ask(`v1/history?${asked}`);
    const lines = data.map((line) => ({
      ...line,
      created: new Date(line.created),
      name: line.name || (line.kind === "live" ? t("live") : line.id),
      closed: !line.has_text,
    }));
    return { lines, next };
  },
  open: async (id) => (await ask(`v1/history/${encodeURIComponent(id)}`)).result,
  remove: (id) => ask(`v1/history/${encodeURIComponent(id)}`, { method: "DELETE" }),
};

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return found.filter((item) => item.about && Array.isArray(item.segments));
  } catch {
    return [];
  }
}

function keep(items) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(items.slice(0, MOST)));
  } catch {
    // The browser's space is used up: what is on the page stays there.
  }
}

const folded = (text) => text.toLowerCase().replaceAll("ё", "е");

/** The words around the first place where the query stands; null if it does not. */
function snippet(text, query) {
  if (!query) return [{ text: text.slice(0, 4 * AROUND), hit: false }];
  const at = folded(text).indexOf(folded(query));
  if (at < 0) return null;
  const from = Math.max(0, at - AROUND);
  const parts = [
    { text: (from ? "…" : "") + text.slice(from, at), hit: false },
    { text: text.slice(at, at + query.length), hit: true },
    { text: text.slice(at + query.length, at + 4 * AROUND), hit: false },
  ];
  return parts.filter((part) => part.text);
}

/** The browser's own: the last ones, in its local storage. */
export const browserPast = {
  async list(query) {
    const lines = kept().map((item) => ({
      id: item.when, created: new Date(item.when), name: item.about.name, duration: item.about.duration, at: null,
      snippet: snippet(item.segments.map((s) => s.text).join(" "), query.trim()),
    }));
    return { lines: lines.filter((line) => line.snippet), next: null };
  },
  async open(id) {
    const item = kept().find((one) => one.when === id);
    return { ...item.about, segments: item.segments };
  },
  remove: async (id) => keep(kept().filter((item) => item.when !== id)),
  add: (about, segments) => keep([{ when: Date.now(), about, segments }, ...kept()]),
  clear: () => localStorage.removeItem(KEPT),
  get empty() {
    return !kept().length;
  },
};

/** A list with a search over it. `show` gets a transcript and the line that it was opened from. */
export class Past {
  constructor(section, title, source, show, fail) {
    Object.assign(this, { section, title, source, show, fail, turn: 0 });
    this.search = el("input", { type: "search", spellcheck: false, autocomplete: "off", maxLength: 1000 });
    this.search.oninput = () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.refresh(), TYPING_MS);
    };
    this.heading = el("h2");
    this.list = el("ul");
    this.more = el("button", { type: "button", className: "quiet" });
    this.more.onclick = () => this.load(this.next);
    this.forget = el("span");
    section.replaceChildren(this.heading, this.search, this.list, this.more, this.forget);
    this.label();
  }

  label() {
    this.heading.textContent = t(this.title);
    this.search.placeholder = t("search");
    this.search.setAttribute("aria-label", `${t(this.title)}: ${t("search")}`);
    this.more.textContent = t("next");
    if (this.source.clear) {
      this.forget.replaceChildren(sureButton(t("forget"), t("sureAll"), () => {
        this.source.clear();
        return this.refresh();
      }));
    }
  }

  refresh() {
    return this.load(null);
  }

  async load(after) {
    const turn = ++this.turn; // an answer that was overtaken is not shown
    let found;
    try {
      found = await this.source.list(this.search.value.trim(), after);
    } catch (error) {
      if (turn === this.turn) {
        this.refused = true;
        this.list.replaceChildren(el("li", { className: "hint", textContent: error.status === 403 ? t("closed") : trouble(error) }));
        this.more.hidden = true;
      }
      return;
    }
    if (turn !== this.turn) return;
    this.refused = false;
    const rows = found.lines.map((line) => this.row(line));
    if (after) this.list.append(...rows);
    else this.list.replaceChildren(...rows);
    if (!this.list.children.length) this.list.append(el("li", { className: "hint", textContent: t(this.search.value ? "found0" : "none") }));
    this.next = found.next;
    this.more.hidden = !found.next;
    this.section.hidden = this.source.empty ?? false;
  }

  row(line) {
    const about = el("span", { className: "about" }, el("b", { textContent: line.name }),
      el("time", { textContent: `${when(line.created)}${line.duration ? ` · ${clock(line.duration)}` : ""}` }));
    const text = el("span", { className: "snippet" });
    for (const part of line.snippet) text.append(el(part.hit ? "mark" : "span", { textContent: part.text }));
    if (line.closed) text.append(t("textless"));
    const open = el("button", { type: "button", className: "item", disabled: Boolean(line.closed) }, about, text);
    open.onclick = () => this.act(async () => this.show(await this.source.open(line.id), line));
    const remove = sureButton("✕", t("sure1"), () => this.act(async () => {
      await this.source.remove(line.id);
      await this.refresh();
    }));
    remove.title = t("remove");
    remove.setAttribute("aria-label", `${t("remove")}: ${line.name}`);
    return el("li", {}, open, remove);
  }

  async act(doing) {
    try {
      await doing();
    } catch (error) {
      this.fail(error);
    }
  }
}
