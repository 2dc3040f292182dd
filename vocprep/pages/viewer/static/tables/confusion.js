/** The confusion matrix, whose cells open the patches in question. */

import { askUntilReady } from "../api.js";
import { splitChoice, tableSplit } from "./classes.js";
import { button, fill, h, refill, select } from "../dom.js";
import { versionOf } from "../layers.js";
import { counted, percent, plural } from "../numbers.js";
import { cutout } from "../picture/patches.js";

const CLASSES = 24;
const PATCHES = 60;

export class ConfusionView {
  /** @param {{store: *, server: function(): *}} context */
  constructor({ store, server }) {
    this.store = store;
    this.server = server;
    this.request = new AbortController();
    this.patchRequest = new AbortController();
    this.controls = h("div", { class: "toolbar" });
    this.body = h("div", {});
    this.patches = h("section", {
      class: "similar",
      "aria-label": "Patches of a cell",
      hidden: true,
    });
    const scroll = h("div", { class: "scroll beside" }, this.body, this.patches);
    this.element = h(
      "section",
      { class: "tables", "aria-label": "Confusion matrix", hidden: true },
      [this.controls, scroll],
    );
  }

  /** @param {import("../state.js").State} state */
  show(state) {
    const runs = this.server().runs.filter((run) => run.version === state.v);
    const run = runs.find(({ key }) => key === state.r) ?? runs[0];
    const split = tableSplit(state, this.server());
    const named = runs.map(({ key, name }) => [key, `${Number(key) + 1}: ${name}`]);
    const choose = (r) => this.store.set({ r });
    refill(
      this.controls,
      splitChoice(this.store, this.server(), split),
      runs.length > 1 ? select("Run", named, run.key, choose) : null,
    );
    if (!run) {
      fill(this.body, h("p", { class: "message" }, "There is no run: give one to `vocprep view`."));
      return;
    }
    this.query = { v: state.v, r: run.key, split };
    this.#showMatrix([state.v, run.key, run.state, split].join("\n"), state);
    this.#showPatches(state);
  }

  /** Stop what is under way; the view is left. */
  leave() {
    this.request.abort();
    if (!this.answer) this.key = null;
  }

  async #showMatrix(key, state) {
    if (key === this.key) {
      this.#markCell(state);
      return;
    }
    this.key = key;
    this.answer = null;
    this.request.abort();
    this.request = new AbortController();
    fill(this.body, h("p", { class: "message" }, "Loading…"));
    const waiting = (said) => fill(this.body, h("p", { class: "message" }, said));
    const query = { ...this.query, limit: CLASSES };
    try {
      this.answer = await askUntilReady("confusion", query, this.request.signal, waiting);
      fill(this.body, this.#matrix());
      this.#markCell(this.store.current);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.key = null;
      fill(this.body, h("p", { class: "message", role: "alert" }, error.message));
    }
  }

  #matrix() {
    const { classes, counts, other } = this.answer;
    const names = this.#names();
    const heads = classes.map((id) =>
      h("th", { scope: "col", class: "turned" }, h("span", {}, names.get(id) ?? `class ${id}`)),
    );
    const rows = classes.map((id, row) => {
      const whole = counts[row].reduce((sum, value) => sum + value, 0) + other[row];
      const cells = classes.map((predicted, column) =>
        this.#cell(id, predicted, counts[row][column], whole),
      );
      const rest = h("td", { class: "number quiet" }, share(other[row], whole));
      const name = names.get(id) ?? `class ${id}`;
      return h("tr", {}, h("th", { scope: "row" }, name), cells, rest);
    });
    const last = h("th", { scope: "col", class: "turned" }, h("span", {}, "other"));
    return h(
      "table",
      { class: "matrix" },
      h(
        "caption",
        {},
        "Share of each true class's pixels (rows) by predicted class (columns), in %",
      ),
      h("thead", {}, h("tr", {}, h("td", {}, "truth ↓ predicted →"), heads, last)),
      h("tbody", {}, rows),
    );
  }

  #cell(truth, predicted, count, whole) {
    const names = this.#names();
    const part = whole > 0 ? count / whole : 0;
    const kind = truth === predicted ? "is-right" : "is-wrong";
    const said = `${names.get(truth)} predicted as ${names.get(predicted)}`;
    const cell = h("td", { class: kind, "data-cell": `${truth} ${predicted}` });
    cell.style.setProperty("--share", String(Math.sqrt(part)));
    if (count > 0) {
      const href = this.store.url({ truth: String(truth), predicted: String(predicted) });
      const title = `${said}: ${percent(part)}, ${plural(count, "pixel")}`;
      const unseen = h("span", { class: "unseen" }, ` % of ${said}`);
      cell.append(h("a", { href, title }, share(count, whole), unseen));
    }
    return cell;
  }

  #markCell({ truth, predicted }) {
    for (const cell of this.body.querySelectorAll("td[data-cell]")) {
      cell.classList.toggle("is-chosen", cell.dataset.cell === `${truth} ${predicted}`);
    }
  }

  #showPatches(state) {
    const { truth, predicted } = state;
    const key = [...Object.values(this.query), truth, predicted].join("\n");
    if (key === this.patchKey) return;
    this.patchKey = key;
    this.patchRequest.abort();
    this.patchRequest = new AbortController();
    this.patches.hidden = truth === "" || predicted === "";
    if (this.patches.hidden) return;
    const names = this.#names();
    const name = (id) => names.get(Number(id)) ?? `class ${id}`;
    const title =
      truth === predicted ? `${name(truth)}, found` : `${name(truth)} taken for ${name(predicted)}`;
    const release = () => this.store.set({ truth: "", predicted: "" });
    this.status = h("p", { class: "quiet", role: "status" }, "Looking for patches…");
    this.found = h("div", { class: "cutouts" });
    const heading = [h("h2", {}, title), button("Close", release, { class: "plain" })];
    fill(this.patches, h("div", { class: "heading" }, heading), this.status, this.found);
    this.#more(0);
  }

  async #more(offset) {
    const { truth, predicted } = this.store.current;
    const query = { ...this.query, truth, predicted, offset, limit: PATCHES };
    const waiting = (sentence) => fill(this.status, sentence);
    try {
      const answer = await askUntilReady("confused", query, this.patchRequest.signal, waiting);
      this.found.append(...answer.patches.map((patch) => this.#cutout(patch)));
      const shown = offset + answer.patches.length;
      const next = () => this.#more(shown);
      const more = shown < answer.total ? button("Show more", next, { class: "plain" }) : null;
      fill(this.status, `${counted(shown)} of ${plural(answer.total, "patch", "patches")}, `);
      this.status.append("most pixels first ", more ?? "");
      if (offset === 0) this.patches.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (error.name !== "AbortError") fill(this.status, error.message);
    }
  }

  #cutout(patch) {
    const version = versionOf(this.server(), this.query.v);
    const open = { id: patch.id, patch: String(patch.patch), split: this.query.split, at: "0" };
    return cutout(patch, {
      version: version.key,
      hasPhotographs: version.has_photographs,
      href: this.store.url({ view: "pictures", class: "", text: "", status: "record", ...open }),
      text: plural(patch.pixels, "pixel"),
      label: `${patch.id}, patch ${patch.patch}`,
    });
  }

  #names() {
    const version = versionOf(this.server(), this.query.v);
    return new Map(version.classes.map(({ id, name }) => [id, name]));
  }
}

function share(count, whole) {
  if (count === 0 || whole === 0) return "";
  const value = (100 * count) / whole;
  return value < 0.5 ? "<1" : value.toFixed(0);
}
