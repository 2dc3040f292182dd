/** The controls above the list: which pictures, in which order, shown how. */

import { Combobox } from "./combobox.js";
import { button, h, refill, select, settled } from "../dom.js";
import { availableLayers, tileChoices, versionOf } from "../layers.js";
import { plural } from "../numbers.js";

const LARGE_FIRST = ["size", "loss", "difference"];

/**
 * The orders that the server can list pictures in.
 * @param {*} server the answer to `state`
 * @param {string} browsed key of the version
 * @returns {Array<[string, string]>} as written in the address, and titles
 */
export function sortChoices(server, browsed) {
  const { runs, versions } = server;
  const number = (run) => (runs.length > 1 ? ` of run ${Number(run.key) + 1}` : "");
  const choices = [
    ["id", "id"],
    ["size", "size"],
    ...runs.map((run) => [`score:${run.key}`, `score${number(run)}`]),
    ...runs.map((run) => [`loss:${run.key}`, `loss${number(run)}`]),
  ];
  if (versionOf(server, browsed).has_audit) choices.push(["quality", "label quality"]);
  for (const [one, other] of pairs(runs)) {
    const names = `${Number(one.key) + 1} and ${Number(other.key) + 1}`;
    choices.push([`difference:${one.key}:${other.key}`, `difference of runs ${names}`]);
  }
  for (const { key } of versions.filter((version) => version.key !== browsed)) {
    choices.push([`changed:${key}`, `changes to version ${key.toUpperCase()}`]);
  }
  return choices;
}

export class Filters {
  /** @param {{store: *, server: function(): *}} context */
  constructor({ store, server }) {
    this.store = store;
    this.server = server;
    this.counts = new Map();
    const search = settled(250, (text) => this.#set({ text }, { replace: true }));
    this.text = h("input", {
      type: "search",
      placeholder: "part of an id",
      "aria-label": "Search ids",
      "aria-keyshortcuts": "/",
      spellcheck: "false",
      oninput: (event) => search(event.target.value.trim()),
    });
    this.classes = new Combobox("Class", "any class", (id) => this.#set({ class: id }));
    this.before = h("div", { class: "group" });
    this.after = h("div", { class: "group" });
    this.summary = h("summary", {}, "Filters");
    const fixed = h(
      "div",
      { class: "group" },
      this.classes.element,
      h("label", { class: "field" }, h("span", {}, "Id"), this.text),
    );
    this.controls = h("div", { class: "controls" }, this.before, fixed, this.after);
    // A narrow window shows the summary only; CSS opens the rest where there is room.
    this.element = h("details", { class: "filters", open: true }, this.summary, this.controls);
    const narrow = matchMedia("(max-width: 700px)");
    const fold = () => (narrow.matches ? this.element.removeAttribute("open") : this.#unfold());
    narrow.addEventListener("change", fold);
    fold();
  }

  /**
   * @param {import("../state.js").State} state
   * @param {Map<number, number>} counts pictures by class
   */
  show(state, counts) {
    const server = this.server();
    const version = versionOf(server, state.v);
    if (document.activeElement !== this.text) this.text.value = state.text;
    this.classes.set(classOptions(version, counts), state.class);
    refill(this.before, this.#which(state, server, version));
    refill(this.after, this.#how(state, server));
    const used = ["split", "class", "text"].filter((key) => state[key] !== "").length;
    this.summary.textContent = used > 0 ? `Filters (${used})` : "Filters";
  }

  #unfold() {
    this.element.setAttribute("open", "");
  }

  #set(changes, how) {
    this.store.set({ at: "0", ...changes }, how);
  }

  #which(state, server, version) {
    const splits = version.splits.map(({ name, pictures }) => [name, `${name} (${pictures})`]);
    const versions = server.versions.map(({ key, name }) => [key, `${key.toUpperCase()}: ${name}`]);
    const kinds = [
      ["record", "in the version"],
      ["quarantined", `quarantined (${version.quarantined})`],
    ];
    return [
      versions.length > 1
        ? select("Version", versions, state.v, (v) => this.#set({ v, sort: "id", order: "asc" }))
        : null,
      select("Split", [["", "all"], ...splits], state.split, (split) => this.#set({ split })),
      version.quarantined > 0 || state.status === "quarantined"
        ? select("Status", kinds, state.status, (status) => this.#set({ status }))
        : null,
    ];
  }

  #how(state, server) {
    const isUp = state.order === "asc";
    const layers = tileChoices(availableLayers(server, state.v));
    const sizes = [
      ["s", "small"],
      ["m", "medium"],
      ["l", "large"],
    ];
    return [
      h(
        "div",
        { class: "joined" },
        select("Sort by", sortChoices(server, state.v), state.sort, (sort) => this.#sort(sort)),
        button(isUp ? "↑" : "↓", () => this.#set({ order: isUp ? "desc" : "asc" }), {
          "aria-label": isUp ? "Ascending; sort descending" : "Descending; sort ascending",
          "data-key": "order",
          class: "plain",
        }),
      ),
      select("Show", layers, state.show, (show) => this.store.set({ show })),
      select("Tiles", sizes, state.size, (size) => this.store.set({ size })),
    ];
  }

  #sort(sort) {
    const order = LARGE_FIRST.includes(sort.split(":")[0]) ? "desc" : "asc";
    this.#set({ sort, order });
  }
}

function pairs(items) {
  return items.flatMap((one, index) => items.slice(index + 1).map((other) => [one, other]));
}

function classOptions(version, counts) {
  const options = version.classes.map(({ id, name, colour }) => ({
    id: String(id),
    name,
    colour,
    count: counts.get(id) ?? 0,
    note: counts.has(id) ? plural(counts.get(id), "picture") : "",
  }));
  return options.sort((one, other) => other.count - one.count);
}
