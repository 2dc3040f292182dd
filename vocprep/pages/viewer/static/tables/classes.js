/** The table of classes: how much there is of each, and how well runs find it. */

import { askUntilReady } from "../api.js";
import { bar, fill, h, refill, select, swatch } from "../dom.js";
import { versionOf } from "../layers.js";
import { counted, difference, percent } from "../numbers.js";

/**
 * Sort rows of the class table; rows without a value come last.
 * @param {Array<Object<string, *>>} rows
 * @param {string} by
 * @param {string} dir asc or desc
 * @returns {Array<Object<string, *>>}
 */
export function sorted(rows, by, dir) {
  const sign = dir === "asc" ? 1 : -1;
  const compare = (one, other) => {
    if (typeof one === "string") return sign * one.localeCompare(other);
    return sign * (one - other);
  };
  const has = (row) => row[by] !== null && row[by] !== undefined;
  const known = rows
    .filter(has)
    .sort((one, other) => compare(one[by], other[by]) || one.id - other.id);
  return [...known, ...rows.filter((row) => !has(row))];
}

/**
 * Join the classes of a split with the scores of runs.
 * @param {Array<*>} answers of the server's `classes`, one per run, or one without a run
 * @param {string[]} keys of the runs
 * @returns {Array<Object<string, *>>}
 */
export function joined(answers, keys) {
  const byId = answers.map(({ classes }) => new Map(classes.map((item) => [item.id, item])));
  const whole = answers[0].classes.reduce((sum, item) => sum + item.pixels, 0);
  return answers[0].classes.map((item) => {
    const row = { id: item.id, name: item.name, pixels: item.pixels, pictures: item.pictures };
    row.share = whole > 0 ? item.pixels / whole : 0;
    keys.forEach((key, number) => {
      const scores = byId[number].get(item.id);
      row[`iou:${key}`] = scores?.iou;
      row[`accuracy:${key}`] = scores?.accuracy;
    });
    const [one, other] = [row[`iou:${keys[0]}`], row[`iou:${keys[1]}`]];
    const both = [one, other].every((value) => value !== null && value !== undefined);
    row.difference = both ? other - one : null;
    return row;
  });
}

export class ClassesView {
  /** @param {{store: *, server: function(): *, announce: function(string): void}} context */
  constructor({ store, server, announce }) {
    this.store = store;
    this.server = server;
    this.announce = announce;
    this.request = new AbortController();
    this.controls = h("div", { class: "toolbar" });
    this.body = h("div", { class: "scroll" });
    this.element = h("section", { class: "tables", "aria-label": "Classes", hidden: true }, [
      this.controls,
      this.body,
    ]);
  }

  /** @param {import("../state.js").State} state */
  async show(state) {
    const split = tableSplit(state, this.server());
    const runs = this.server().runs.filter((run) => run.version === state.v);
    const key = [state.v, split, ...runs.map((run) => `${run.key} ${run.state}`)].join("\n");
    refill(this.controls, splitChoice(this.store, this.server(), split));
    if (key === this.key) {
      if (this.answers) this.#draw(state, runs);
      return;
    }
    this.key = key;
    this.answers = null;
    this.request.abort();
    this.request = new AbortController();
    fill(this.body, h("p", { class: "message" }, "Loading…"));
    const waiting = (said) => fill(this.body, h("p", { class: "message" }, said));
    const query = { v: state.v, split };
    const queries = runs.length > 0 ? runs.map((run) => ({ ...query, r: run.key })) : [query];
    try {
      const { signal } = this.request;
      const asked = queries.map((item) => askUntilReady("classes", item, signal, waiting));
      this.answers = await Promise.all(asked);
      this.#draw(this.store.current, runs);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.key = null;
      fill(this.body, h("p", { class: "message", role: "alert" }, error.message));
    }
  }

  /** Stop what is under way; the view is left. */
  leave() {
    this.request.abort();
    if (!this.answers) this.key = null;
  }

  #draw(state, runs) {
    const keys = runs.map((run) => run.key);
    const rows = sorted(joined(this.answers, keys), state.by, state.dir);
    const ladders = runs.map((run, index) =>
      ladder(run, this.answers[index].rows, runs.length > 1),
    );
    refill(this.body, h("div", { class: "ladders" }, ladders), this.#table(state, rows, runs));
  }

  #table(state, rows, runs) {
    const version = versionOf(this.server(), state.v);
    const colours = new Map(version.classes.map((item) => [item.id, item.colour]));
    const columns = columnsOf(runs);
    const most = Math.max(...rows.map((row) => row.share), 1e-9);
    const heads = columns.map(([by, title, isNumber]) => this.#head(state, by, title, isNumber));
    const body = rows.map((row) => this.#row(row, runs, colours, most));
    return h(
      "table",
      { class: "data" },
      h("caption", { class: "unseen" }, "Classes"),
      h("thead", {}, h("tr", {}, heads)),
      h("tbody", {}, body),
    );
  }

  #head(state, by, title, isNumber) {
    const isBy = state.by === by;
    const direction = state.dir === "asc" ? "ascending" : "descending";
    const turn = () => {
      const first = by === "name" ? "asc" : "desc";
      const other = state.dir === "asc" ? "desc" : "asc";
      this.store.set({ by, dir: isBy ? other : first }, { replace: true });
    };
    const arrow = isBy ? (state.dir === "asc" ? " ↑" : " ↓") : "";
    return h(
      "th",
      { scope: "col", class: isNumber ? "number" : null, "aria-sort": isBy ? direction : null },
      h("button", { type: "button", class: "plain", "data-key": by, onclick: turn }, title, arrow),
    );
  }

  #row(row, runs, colours, most) {
    const colour = colours.get(row.id) ?? "transparent";
    const href = this.store.url({ view: "pictures", class: String(row.id), at: "0" });
    const cells = runs.flatMap((run) => [
      h("td", { class: "number" }, percent(row[`iou:${run.key}`]), bar(row[`iou:${run.key}`])),
      h("td", { class: "number" }, percent(row[`accuracy:${run.key}`])),
    ]);
    if (runs.length > 1) {
      const sign = row.difference > 0 ? "is-better" : "is-worse";
      const kind = row.difference ? `number ${sign}` : "number";
      cells.push(h("td", { class: kind }, difference(row.difference)));
    }
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, swatch(colour), h("a", { href }, row.name)),
      h("td", { class: "number" }, counted(row.pixels), bar(row.share / most, colour)),
      h("td", { class: "number" }, counted(row.pictures)),
      cells,
    );
  }
}

/**
 * The split that tables are about: the one that is filtered by, else the last, which is scored.
 * @param {import("../state.js").State} state
 * @param {*} server
 * @returns {string}
 */
export function tableSplit(state, server) {
  const { splits } = versionOf(server, state.v);
  const names = splits.map(({ name }) => name);
  if (names.includes(state.split)) return state.split;
  return names.includes("val") ? "val" : (names.at(-1) ?? "");
}

/**
 * @param {import("../state.js").Store} store
 * @param {*} server
 * @param {string} split
 * @returns {HTMLElement}
 */
export function splitChoice(store, server, split) {
  const { splits } = versionOf(server, store.current.v);
  const options = splits.map(({ name, pictures }) => [name, `${name} (${pictures})`]);
  return select("Split", options, split, (chosen) => store.set({ split: chosen }));
}

function columnsOf(runs) {
  const number = (run) => (runs.length > 1 ? ` ${Number(run.key) + 1}` : "");
  return [
    ["name", "Class", false],
    ["pixels", "Pixels", true],
    ["pictures", "Pictures", true],
    ...runs.flatMap((run) => [
      [`iou:${run.key}`, `IoU${number(run)}`, true],
      [`accuracy:${run.key}`, `Accuracy${number(run)}`, true],
    ]),
    ...(runs.length > 1 ? [["difference", "IoU 2 − 1", true]] : []),
  ];
}

const LADDER = [
  ["miou", "mIoU present"],
  ["miou_frequent", "mIoU ≥1 %"],
  ["pixel_accuracy", "Pixel accuracy"],
  ["boundary_iou_3", "IoU 3 px"],
  ["boundary_iou_8", "IoU 8 px"],
  ["mask_iou", "Mask IoU"],
  ["own_mask_iou", "Own mask"],
];

function ladder(run, rows, isOneOfMany) {
  const title = isOneOfMany ? `Run ${Number(run.key) + 1}: ${run.name}` : run.name;
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, row.name),
      ...LADDER.map(([key]) => h("td", { class: "number" }, percent(row[key]))),
    ),
  );
  const heads = [
    h("th", { scope: "col" }, h("span", { class: "unseen" }, "row")),
    ...LADDER.map(([, name]) => h("th", { scope: "col", class: "number" }, name)),
  ];
  return h(
    "table",
    { class: "data ladder" },
    h("caption", {}, title),
    h("thead", {}, h("tr", {}, heads)),
    h("tbody", {}, body),
  );
}
