// Long recordings: sent to the server's queue, followed, opened when they are done (docs/jobs.md).

import { ask, mayAsk, sendJob } from "./api.js";
import { el, sureButton } from "./dom.js";
import { t, trouble, when } from "./words.js";

const POLL_MS = 1000;
const CALM_MS = 10000; // after an error
const SHOWN = 10;

export class Jobs {
  /**
   * `show` gets a transcript, the job, and the file if this page sent it; `ended` hears that one is done; `elsewhere`
   * tells whether those that are done stand in the history.
   */
  constructor(section, { show, fail, ended, elsewhere }) {
    Object.assign(this, { section, show, fail, ended, elsewhere, jobs: [], sending: [] });
    this.files = new Map();
    this.rows = new Map();
    this.heading = el("h2");
    this.list = el("ul");
    section.replaceChildren(this.heading, this.list);
  }

  label() {
    this.heading.textContent = t("jobs");
    this.rows.clear();
    this.paint();
  }

  async add(file, options) {
    const upload = { id: `upload ${file.name} ${Math.random()}`, status: "sending", name: file.name, progress: 0 };
    this.sending.unshift(upload);
    this.paint();
    try {
      const job = await sendJob(file, [["name", file.name], ...options], (share) => {
        upload.progress = share;
        this.paint();
      });
      this.files.set(job.id, file);
      this.jobs = [job, ...this.jobs.filter((other) => other.id !== job.id)];
      return job;
    } finally {
      this.sending = this.sending.filter((other) => other !== upload);
      this.paint();
      this.refresh();
    }
  }

  /** Ask for the list now, and again as long as something in it waits or runs. */
  async refresh() {
    clearTimeout(this.timer);
    if (!mayAsk()) return;
    let pause = POLL_MS;
    try {
      const before = new Map(this.jobs.map((job) => [job.id, job.status]));
      this.jobs = (await ask(`v1/jobs?limit=${SHOWN}`)).data;
      this.paint();
      if (this.jobs.some((job) => job.status === "done" && before.get(job.id) !== "done" && before.size)) this.ended();
    } catch (error) {
      pause = CALM_MS;
      if (error.status === 401 || error.status === 403) {
        this.section.hidden = error.status === 401;
        this.list.replaceChildren(el("li", { className: "hint", textContent: t("closed") }));
        return;
      }
    }
    clearTimeout(this.timer);
    if (this.jobs.some((job) => job.status === "queued" || job.status === "running")) {
      this.timer = setTimeout(() => this.refresh(), pause);
    }
  }

  paint() {
    const all = [...this.sending, ...this.jobs.filter((job) => job.status !== "done" || !this.elsewhere())];
    this.section.hidden = !all.length;
    const rows = all.map((job) => this.row(job));
    for (const id of this.rows.keys()) if (!all.some((job) => job.id === id)) this.rows.delete(id);
    if (rows.length !== this.list.children.length || rows.some((row, i) => row !== this.list.children[i])) {
      this.list.replaceChildren(...rows);
    }
  }

  /** The row of a job: a new one only when its status changes, so that a button keeps the focus. */
  row(job) {
    const old = this.rows.get(job.id);
    const row = old?.status === job.status ? old : this.newRow(job);
    row.bar.value = job.progress;
    const share = `${Math.floor(100 * job.progress)} %`;
    row.told.textContent = job.status === "sending" ? `${t("sending")} ${share}`
      : `${t(`status_${job.status}`)}${job.status === "running" ? ` ${share}` : ""}`;
    return row;
  }

  newRow(job) {
    const bar = el("progress", { max: 1, value: job.progress, hidden: !["sending", "running"].includes(job.status) });
    bar.setAttribute("aria-label", t("progress"));
    const told = el("span", { className: "told" });
    const about = el("span", { className: "about" }, el("b", { textContent: job.name || job.id }),
      el("time", { textContent: job.created ? when(new Date(job.created)) : "" }));
    const error = job.error ? el("span", { className: "bad snippet", textContent: trouble(job.error) }) : "";
    const done = job.status === "done";
    const item = el(done ? "button" : "div", { className: "item" }, about, told, error, bar);
    if (done) {
      item.type = "button";
      item.onclick = () => this.act(async () => this.show((await this.call(job)).result, job, this.files.get(job.id)));
    }
    const buttons = el("span", { className: "deeds" });
    if (job.status === "queued" || job.status === "running") buttons.append(this.button("cancel", job, () => this.call(job, "DELETE")));
    else if (job.status !== "sending") {
      if (!done) buttons.append(this.button("retry", job, () => this.call(job, "POST", "/retry")));
      const remove = sureButton("✕", t("sure1"), () => this.act(() => this.call(job, "DELETE").then(() => this.ended())));
      remove.setAttribute("aria-label", `${t("remove")}: ${job.name || job.id}`);
      buttons.append(remove);
    }
    const row = Object.assign(el("li", {}, item, buttons), { bar, told, status: job.status });
    this.rows.set(job.id, row);
    return row;
  }

  button(name, job, doing) {
    const button = el("button", { type: "button", className: "quiet", textContent: t(name) });
    button.setAttribute("aria-label", `${t(name)}: ${job.name || job.id}`);
    button.onclick = () => this.act(doing);
    return button;
  }

  call(job, method = "GET", more = "") {
    return ask(`v1/jobs/${encodeURIComponent(job.id)}${more}`, { method });
  }

  async act(doing) {
    try {
      await doing();
    } catch (error) {
      this.fail(error);
    }
    await this.refresh();
  }
}
