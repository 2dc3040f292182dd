/** One picture: its layers, its legend, its patches. */

import { askUntilReady } from "../api.js";
import { button, fill, h, refill } from "../dom.js";
import { availableLayers, chosenLayers, versionOf } from "../layers.js";
import { legendRows, legendTable } from "./legend.js";
import { fixed, percent, counted } from "../numbers.js";
import { patchDetails, patchSentence, SimilarPatches } from "./patches.js";
import { Stage } from "./stage.js";
import { layerBar } from "../toolbar.js";

const CHANGES = {
  same: "the same in both versions",
  embeddings: "other embeddings in the other version",
  targets: "other targets in the other version",
  both: "other embeddings and targets in the other version",
  only: "in this version only",
};

export class PictureView {
  /**
   * @param {{store: *, list: *, server: function(): *, announce: function(string): void}} context
   */
  constructor({ store, list, server, announce }) {
    this.store = store;
    this.list = list;
    this.server = server;
    this.announce = announce;
    this.request = new AbortController();
    this.picture = null;
    this.stage = new Stage({
      point: (patch) => this.#pointed(patch),
      pin: (patch) => this.store.set({ patch: String(patch) }),
    });
    this.similar = new SimilarPatches(store);
    this.bar = h("div", { class: "toolbar", role: "toolbar", "aria-label": "Layers" });
    this.head = h("header", { class: "picture-head" });
    this.details = h("section", { class: "details", "aria-label": "Patch" });
    this.legend = h("section", { "aria-label": "Legend" });
    this.fault = h("div", { class: "message", hidden: true });
    this.side = h("div", { class: "side" }, this.details, this.legend);
    const alike = h("div", { class: "alike" }, this.stage.aside, this.similar.element);
    this.main = h("div", { class: "main" }, this.bar, this.stage.element, alike);
    this.body = h("div", { class: "picture-body", hidden: true }, this.main, this.side);
    this.element = h(
      "article",
      { class: "picture", tabindex: "-1", hidden: true },
      this.head,
      this.fault,
      this.body,
    );
  }

  /** @param {import("../state.js").State} state that has an id */
  show(state) {
    const { id, v } = state;
    if (this.shown?.id !== id || this.shown?.v !== v) {
      this.shown = { id, v };
      this.#load(state);
    } else if (this.picture) {
      this.#draw();
    }
  }

  /** Stop what is under way; the view is left. */
  leave() {
    this.request.abort();
    this.shown = null;
    this.picture = null;
    this.similar.show(null, null, { version: { key: "" }, split: "" });
  }

  /** Ask for the picture again, since runs have been scored meanwhile. */
  reload() {
    if (this.shown) this.#load(this.store.current);
  }

  /**
   * Go to another picture of the list.
   * @param {number} step 1 or -1
   */
  go(step) {
    const target = step > 0 ? this.next : this.previous;
    if (!target) return;
    const changes = { id: target.id, patch: "", at: String(this.position + step) };
    this.store.set(changes, { replace: true });
  }

  /** The layers there are, for the keys 1 to 9. */
  get layers() {
    return availableLayers(this.server(), this.store.current.v);
  }

  async #load(state) {
    this.request.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    this.element.setAttribute("aria-busy", "true");
    this.previous = undefined;
    this.next = undefined;
    this.position = null;
    this.#heading();
    this.#findNeighbours(state.id, signal);
    try {
      const picture = await this.#fetch(state, signal);
      this.picture = picture;
      this.fault.hidden = true;
      this.body.hidden = false;
      this.#draw();
      const { activeElement } = document;
      const isFree = activeElement === document.body || activeElement.id === "main";
      if (isFree) this.stage.element.focus({ preventScroll: true });
    } catch (error) {
      if (error.name === "AbortError") return;
      this.picture = null;
      this.body.hidden = true;
      this.fault.hidden = false;
      fill(this.fault, error.message);
      this.announce(error.message);
    }
    this.element.removeAttribute("aria-busy");
  }

  /** Fetch a picture as the version browsed has it, and as the others have it. */
  async #fetch({ id, v }, signal) {
    const picture = await askUntilReady("picture", { v, id }, signal, (said) =>
      this.announce(said),
    );
    const others = this.server().versions.filter((version) => version.key !== v);
    const found = await Promise.all(
      others.map((version) =>
        askUntilReady("picture", { v: version.key, id }, signal).catch((error) => {
          if (error.name === "AbortError") throw error;
          return null; // that version has no such picture
        }),
      ),
    );
    const grids = { [v]: picture.grid };
    found.forEach((other, index) => {
      if (other) grids[others[index].key] = other.grid;
    });
    return { ...picture, grids, others: new Map(others.map(({ key }, n) => [key, found[n]])) };
  }

  async #findNeighbours(id, signal) {
    try {
      this.position = await this.list.position(id, signal);
      if (this.position !== null) {
        [this.previous, this.next] = await Promise.all([
          this.list.fetchAt(this.position - 1, signal),
          this.list.fetchAt(this.position + 1, signal),
        ]);
        this.store.remember(String(this.position));
      }
    } catch (error) {
      if (error.name === "AbortError") return;
    }
    this.#heading();
  }

  #heading() {
    const { id } = this.store.current;
    const { total } = this.list;
    const place =
      this.position === null || total === null
        ? ""
        : `${counted(this.position + 1)} of ${counted(total)}`;
    const go = (step, name, target) =>
      button(name, () => this.go(step), { "aria-disabled": target ? null : "true" });
    refill(
      this.head,
      h(
        "a",
        { class: "button", href: this.store.url({ id: "", patch: "" }), "data-key": "list" },
        "← List",
      ),
      h("h2", {}, id),
      h("span", { class: "facts" }, this.picture?.id === id ? this.#facts() : null),
      h("span", { class: "spacer" }),
      h("span", { class: "quiet" }, place),
      go(-1, "Previous", this.previous),
      go(1, "Next", this.next),
    );
  }

  #facts() {
    const { split, grid, quality, suspected, changed, runs } = this.picture;
    const facts = [split, `${grid[0]}×${grid[1]} patches`];
    if (changed) facts.push(CHANGES[changed] ?? changed);
    for (const run of this.server().runs) {
      const scores = runs[run.key];
      const name = this.server().runs.length > 1 ? `run ${Number(run.key) + 1}: ` : "";
      if (scores && scores.pixel_accuracy !== null) {
        facts.push(`${name}accuracy ${percent(scores.pixel_accuracy)}, loss ${fixed(scores.loss)}`);
      }
    }
    if (quality !== null && quality !== undefined) facts.push(`label quality ${fixed(quality)}`);
    const chips = facts.map((fact) => h("span", { class: "fact" }, fact));
    return suspected ? [...chips, h("span", { class: "fact is-suspected" }, suspected)] : chips;
  }

  #draw() {
    const state = this.store.current;
    const server = this.server();
    const available = availableLayers(server, state.v);
    const layers = chosenLayers(state.layers, available, server, state.mode);
    const pinned = this.#pinned(state);
    this.#drawBar(state, available, layers);
    this.#heading();
    this.stage.show(this.picture, [...layers, ...this.#similarity(state, pinned)], {
      opacity: Number(state.opacity),
      lines: state.lines === "1",
      pinned,
      photographed: Object.fromEntries(
        server.versions.map((version) => [version.key, version.has_photographs]),
      ),
    });
    this.#drawDetails(this.stage.cursor ?? pinned);
    this.#drawLegend(state);
    const version = versionOf(server, state.v);
    const split = version.splits.some(({ name }) => name === state.near)
      ? state.near
      : this.picture.split;
    this.similar.show(this.picture, pinned, { version, classes: this.#classes(), split });
  }

  #drawBar(state, available, layers) {
    const drawn = [state.mode, state.lines, state.v, ...layers.map((layer) => layer.text)].join();
    if (drawn === this.bar.dataset.drawn) return; // the slider is being moved
    this.bar.dataset.drawn = drawn;
    refill(this.bar, layerBar(this.store, available, layers));
  }

  #similarity(state, pinned) {
    if (pinned === null) return [];
    const layer = { text: "similarity", name: "similarity", run: "", version: state.v };
    const note = `to patch ${pinned}; yellow: alike`;
    return [{ ...layer, title: "Similarity", note, patch: pinned, isAside: true }];
  }

  #pinned({ patch }) {
    return patch !== "" && Number(patch) < this.picture.patches.length ? Number(patch) : null;
  }

  #classes(key = this.store.current.v) {
    const version = versionOf(this.server(), key);
    return new Map(version.classes.map((item) => [item.id, item]));
  }

  #pointed(patch) {
    if (!this.picture) return;
    this.#drawDetails(patch ?? this.#pinned(this.store.current));
    if (patch !== null && this.stage.element.matches(":focus-visible")) {
      this.announce(patchSentence(this.picture, patch, this.#classes()));
    }
  }

  #drawDetails(patch) {
    if (patch === null) {
      const hint = "Point at a patch to see its labels and predictions; click it for similar ones.";
      fill(this.details, h("p", { class: "quiet" }, hint));
      return;
    }
    const { runs, versions } = this.server();
    const isShared = ([, other]) => other && String(other.grid) === String(this.picture.grid);
    const others = [...this.picture.others].filter(isShared).map(([key, other]) => {
      const name = versionOf(this.server(), key).name;
      const title = h("h3", { class: "other" }, `In version ${key.toUpperCase()}: ${name}`);
      return [title, patchDetails(other, patch, this.#classes(key), [])];
    });
    const title =
      versions.length > 1 ? h("h3", {}, versionOf(this.server(), this.shown.v).name) : null;
    fill(this.details, title, patchDetails(this.picture, patch, this.#classes(), runs), others);
  }

  #drawLegend(state) {
    const runs = this.server().runs.filter((run) => this.picture.runs[run.key]?.classes);
    const columns = [
      this.picture.classes,
      ...runs.map((run) => this.picture.runs[run.key].classes),
    ];
    const many = runs.length > 1;
    const titles = [
      "Truth",
      ...runs.map((run) => (many ? `Run ${Number(run.key) + 1}` : "Predicted")),
    ];
    const voids = [
      this.picture.void_percent,
      ...runs.map((run) => this.picture.runs[run.key].void_percent),
    ];
    const rows = legendRows(columns, voids, this.#classes());
    const marked = (id) => {
      const patches = [...this.picture.patches.entries()].filter(([, patch]) =>
        patch.labels.some((label) => label.id === id),
      );
      this.stage.mark(patches.map(([index]) => index));
    };
    const href = (id) => this.store.url({ id: "", patch: "", class: String(id), at: "0" });
    fill(this.legend, h("h3", {}, "Classes"), legendTable(rows, titles, { href, mark: marked }));
    this.legend.dataset.version = state.v;
  }
}
