/** What is known of one patch, and the patches that are like it. */

import { askUntilReady, imageUrl } from "../api.js";
import { bar, button, fill, h, select, swatch } from "../dom.js";
import { fixed, percent, plural } from "../numbers.js";

const SIMILAR = 24;
const SLOTS = 4;

/**
 * Describe a patch: labels, slots, predictions, norm.
 * @param {*} picture of the server's `picture`
 * @param {number} index of the patch
 * @param {Map<number, {name: string, colour: string}>} classes by id
 * @param {Array<{key: string, name: string}>} runs
 * @returns {HTMLElement}
 */
export function patchDetails(picture, index, classes, runs) {
  const patch = picture.patches[index];
  const [row, column] = place(picture, index);
  const facts = [["norm", fixed(patch.norm)]];
  if (patch.quality !== null) facts.push(["label quality", fixed(patch.quality)]);
  return h(
    "div",
    { class: "patch" },
    h("h3", {}, `Patch ${index}`, h("small", {}, ` row ${row + 1}, column ${column + 1}`)),
    labelTable(patch, classes),
    runs.map((run) => predictions(patch, run, classes, runs.length)),
    h(
      "dl",
      { class: "facts" },
      facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    ),
  );
}

/**
 * A patch in one sentence, for those who listen.
 * @param {*} picture
 * @param {number} index
 * @param {Map<number, {name: string}>} classes
 * @returns {string}
 */
export function patchSentence(picture, index, classes) {
  const [row, column] = place(picture, index);
  const labels = picture.patches[index].labels.slice(0, SLOTS);
  const said = labels.map((label) => `${nameOf(classes, label.id)} ${Math.round(label.percent)} %`);
  return `Row ${row + 1}, column ${column + 1}: ${said.join(", ") || "void only"}`;
}

/**
 * A piece of a picture around a patch, as a link that opens it.
 * @param {{id: string, patch: number, row: number, column: number, grid: [number, number]}} found
 * @param {{version: string, hasPhotographs: boolean, href: string, text: string, label: string}} look
 * @returns {HTMLElement}
 */
export function cutout(found, look) {
  const layer = look.hasPhotographs ? { layer: "photo" } : { layer: "truth", plain: "1" };
  const [ny, nx] = found.grid;
  const piece = h("img", {
    class: "piece",
    src: imageUrl({ v: look.version, id: found.id, ...layer }),
    alt: "",
    loading: "lazy",
    draggable: "false",
  });
  // The frame shows three patches by three, the patch in question in the middle.
  piece.style.width = `${(nx * 100) / 3}%`;
  piece.style.height = `${(ny * 100) / 3}%`;
  piece.style.left = `${((1 - found.column) * 100) / 3}%`;
  piece.style.top = `${((1 - found.row) * 100) / 3}%`;
  return h(
    "a",
    { class: "cutout", href: look.href, title: look.label },
    h("span", { class: "window" }, piece, h("span", { class: "middle" })),
    h("span", { class: "below" }, look.text, h("span", { class: "unseen" }, `, ${look.label}`)),
  );
}

/** The patches of a split that are most like a pinned one. */
export class SimilarPatches {
  /** @param {{url: function(Object): string, set: function(Object): void}} store */
  constructor(store) {
    this.store = store;
    this.request = new AbortController();
    this.element = h("section", {
      class: "similar",
      "aria-label": "Similar patches",
      hidden: true,
    });
  }

  /**
   * @param {*} picture
   * @param {number|null} patch
   * @param {{version: *, classes: Map<number, *>, split: string}} look
   */
  async show(picture, patch, look) {
    const key = [look.version.key, picture?.id, patch, look.split].join("\n");
    if (key === this.key) return;
    this.key = key;
    this.request.abort();
    this.request = new AbortController();
    this.element.hidden = patch === null;
    if (patch === null) return;
    const status = h("p", { class: "quiet", role: "status" }, "Looking for similar patches…");
    fill(this.element, this.#heading(picture, patch, look), status);
    const query = { v: look.version.key, id: picture.id, patch, split: look.split, limit: SIMILAR };
    const waiting = (sentence) => fill(status, sentence);
    try {
      const answer = await askUntilReady("similar", query, this.request.signal, waiting);
      fill(status, `of ${look.split}, by cosine, in ${Math.max(answer.seconds, 0.01).toFixed(2)} s`);
      this.element.append(this.#found(answer.patches, look));
    } catch (error) {
      if (error.name !== "AbortError") fill(status, error.message);
    }
  }

  #heading(picture, patch, look) {
    const splits = look.version.splits.map(({ name }) => [name, name]);
    const choose = (near) => this.store.set({ near: near === picture.split ? "" : near });
    return h(
      "div",
      { class: "heading" },
      h("h3", {}, `Similar to patch ${patch}`),
      splits.length > 1 ? select("in", splits, look.split, choose) : null,
      button("Release", () => this.store.set({ patch: "" }), { class: "plain" }),
    );
  }

  #found(patches, look) {
    const pieces = patches.map((found) => {
      const label = found.labels[0];
      const name = label ? nameOf(look.classes, label.id) : "void";
      return cutout(found, {
        version: look.version.key,
        hasPhotographs: look.version.has_photographs,
        href: this.store.url({ id: found.id, patch: String(found.patch), at: "0" }),
        text: [h("b", {}, found.similarity.toFixed(3)), ` ${name}`],
        label: `${found.id}, patch ${found.patch}`,
      });
    });
    return h("div", { class: "cutouts" }, pieces);
  }
}

function labelTable(patch, classes) {
  const rows = patch.labels.map((label, rank) =>
    h(
      "tr",
      { class: rank < SLOTS ? null : "is-left-out" },
      h("td", { class: "slot" }, rank < SLOTS ? String(rank + 1) : "–"),
      h(
        "td",
        {},
        swatch(classes.get(label.id)?.colour ?? "transparent"),
        nameOf(classes, label.id),
      ),
      h("td", { class: "wide" }, bar(label.percent / 100, classes.get(label.id)?.colour)),
      h("td", { class: "number" }, `${label.percent.toFixed(1)} %`),
    ),
  );
  const more = patch.label_count - patch.labels.length;
  return h(
    "table",
    { class: "labels" },
    h("caption", {}, patch.labels.length ? "Truth: slots and labels" : "Truth: void only"),
    rows,
    more > 0 ? h("tr", {}, h("td", { colspan: 4 }, `and ${plural(more, "label")} more`)) : null,
  );
}

function predictions(patch, run, classes, runs) {
  const predicted = patch.predicted?.[run.key];
  if (!predicted) return null;
  const right = new Set(patch.labels.slice(0, SLOTS).map((label) => label.id));
  const rows = predicted.map((item) =>
    h(
      "tr",
      {},
      h("td", { class: "slot" }, right.has(item.id) ? "✓" : ""),
      h("td", {}, swatch(classes.get(item.id)?.colour ?? "transparent"), nameOf(classes, item.id)),
      h("td", { class: "wide" }, bar(item.probability, classes.get(item.id)?.colour)),
      h("td", { class: "number" }, percent(item.probability)),
    ),
  );
  const title = runs > 1 ? `Predicted by ${Number(run.key) + 1}: ${run.name}` : "Predicted";
  return h("table", { class: "labels" }, h("caption", {}, title), rows);
}

function place(picture, index) {
  const columns = picture.grid[1];
  return [Math.floor(index / columns), index % columns];
}

function nameOf(classes, id) {
  return classes.get(id)?.name ?? `class ${id}`;
}
