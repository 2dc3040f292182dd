/** The layers of one picture beside each other, with a cursor that walks its patches. */

import { imageFault, imageUrl } from "../api.js";
import { fill, h } from "../dom.js";
import { layerQuery } from "../layers.js";

/** Layers that are the whole picture, not something laid over the photo. */
const WHOLE = new Set(["photo"]);

export class Stage {
  /** @param {{point: function(number|null): void, pin: function(number): void}} actions */
  constructor(actions) {
    this.actions = actions;
    this.panels = [];
    this.cursor = null;
    this.aside = h("div", { class: "aside" }); // of layers that come and go, so that none moves
    this.element = h("div", {
      class: "panels",
      role: "application",
      tabindex: "0",
      "aria-label": "Patches: arrow keys move, Enter shows similar patches",
      onkeydown: (event) => this.#pressed(event),
      onfocus: () => this.#focused(),
      onblur: () => this.#leave(),
    });
  }

  /**
   * Show layers of a picture.
   * @param {{id: string, grid: [number, number], grids: Object<string, [number, number]>}} picture
   *   `grids` by version
   * @param {import("../layers.js").Layer[]} layers
   * @param {{opacity: number, lines: boolean, pinned: number|null,
   *   photographed: Object<string, boolean>}} look
   */
  show(picture, layers, look) {
    const isSame = this.picture === picture && this.layers.length === layers.length;
    const pinned = look.pinned ?? "";
    const texts = layers.map((layer) => `${layer.text} ${layer.patch ?? ""}`);
    const known = this.panels.map((panel) => panel.text);
    this.picture = picture;
    this.layers = layers;
    this.look = look;
    if (!isSame || texts.join() !== known.join()) this.#build(texts);
    this.pinned = pinned === "" ? null : pinned;
    for (const panel of this.panels) this.#adjust(panel);
    this.#place();
  }

  /**
   * Mark patches in every panel, such as those of a class.
   * @param {number[]} patches
   */
  mark(patches) {
    for (const { marks, version } of this.panels) {
      const cells = this.#fits(version) ? patches : [];
      fill(
        marks,
        cells.map((patch) => this.#cell("cell is-marked", patch)),
      );
    }
  }

  #build(texts) {
    this.panels = this.layers.map((layer, index) => this.#panel(layer, texts[index]));
    const main = this.panels.filter((panel, index) => !this.layers[index].isAside);
    const aside = this.panels.filter((panel) => !main.includes(panel));
    fill(
      this.element,
      main.map((panel) => panel.element),
    );
    fill(
      this.aside,
      aside.map((panel) => panel.element),
    );
    this.element.style.setProperty("--columns", String(main.length));
  }

  #panel(layer, text) {
    const { version } = layer;
    const [ny, nx] = this.picture.grids[version] ?? this.picture.grid;
    const hasPhoto = this.look.photographed[version];
    const isWhole = WHOLE.has(layer.name);
    const query = { ...layerQuery(layer), id: this.picture.id, patch: layer.patch };
    const under =
      hasPhoto && !isWhole ? this.#image("under", { v: version, layer: "photo" }) : null;
    const fault = h("p", { class: "fault", hidden: true });
    const over = this.#image("over", isWhole ? query : { ...query, plain: "1" }, fault);
    const lines = h("div", { class: "lines" });
    lines.style.backgroundSize = `${100 / nx}% ${100 / ny}%`;
    lines.style.setProperty("--nx", String(nx));
    lines.style.setProperty("--ny", String(ny));
    const marks = h("div", { class: "marks" });
    const cursors = h("div", { class: "marks" });
    const canvas = h(
      "div",
      {
        class: "canvas",
        style: { "aspect-ratio": `${nx} / ${ny}` },
        onpointermove: (event) => this.#hovered(event, version),
        onpointerleave: () => this.#leave(),
        onclick: (event) => this.#clicked(event, version),
      },
      under,
      over,
      lines,
      marks,
      cursors,
      fault,
    );
    const note = layer.note ? h("small", {}, layer.note) : null;
    const caption = h("figcaption", {}, h("span", {}, layer.title), note);
    const element = h("figure", { class: "panel", "data-layer": layer.text }, caption, canvas);
    return { element, over, under, lines, marks, cursors, version, text, isWhole };
  }

  #image(kind, query, fault = null) {
    const url = imageUrl({ id: this.picture.id, ...query });
    const onload = (event) => event.target.classList.add("is-there");
    const onerror = async (event) => {
      event.target.hidden = true;
      if (!fault) return;
      fault.hidden = false;
      fault.textContent = (await imageFault(url)).message;
    };
    return h("img", { class: kind, src: url, alt: "", draggable: "false", onload, onerror });
  }

  #adjust({ over, under, lines, isWhole }) {
    over.style.opacity = under && !under.hidden && !isWhole ? String(this.look.opacity / 100) : "1";
    lines.hidden = !this.look.lines;
  }

  /** Draw the cursor and the pinned patch. */
  #place() {
    for (const { cursors, version } of this.panels) {
      const fits = this.#fits(version);
      fill(
        cursors,
        fits && this.pinned !== null ? this.#cell("cell is-pinned", this.pinned) : null,
        fits && this.cursor !== null ? this.#cell("cell is-cursor", this.cursor) : null,
      );
    }
  }

  #cell(kind, patch) {
    const [ny, nx] = this.picture.grid;
    const cell = h("div", { class: kind });
    cell.style.left = `${(100 * (patch % nx)) / nx}%`;
    cell.style.top = `${(100 * Math.floor(patch / nx)) / ny}%`;
    cell.style.width = `${100 / nx}%`;
    cell.style.height = `${100 / ny}%`;
    return cell;
  }

  /** Whether the patches of a version's picture are those of the picture that is open. */
  #fits(version) {
    return String(this.picture.grids[version]) === String(this.picture.grid);
  }

  #patchAt(event, version) {
    if (!this.#fits(version)) return null;
    const [ny, nx] = this.picture.grid;
    const box = event.currentTarget.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * nx);
    const row = Math.floor(((event.clientY - box.top) / box.height) * ny);
    if (column < 0 || row < 0 || column >= nx || row >= ny) return null;
    return row * nx + column;
  }

  #hovered(event, version) {
    this.#point(this.#patchAt(event, version));
  }

  #clicked(event, version) {
    const patch = this.#patchAt(event, version);
    if (patch !== null) this.actions.pin(patch);
  }

  #focused() {
    if (this.element.matches(":focus-visible")) this.#point(this.cursor ?? this.pinned ?? 0);
  }

  #leave() {
    this.#point(null);
  }

  #point(patch) {
    if (patch === this.cursor) return;
    this.cursor = patch;
    this.#place();
    this.actions.point(patch);
  }

  #pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const [ny, nx] = this.picture.grid;
    const at = this.cursor ?? this.pinned ?? 0;
    const [row, column] = [Math.floor(at / nx), at % nx];
    const moves = {
      ArrowLeft: [row, Math.max(column - 1, 0)],
      ArrowRight: [row, Math.min(column + 1, nx - 1)],
      ArrowUp: [Math.max(row - 1, 0), column],
      ArrowDown: [Math.min(row + 1, ny - 1), column],
      Home: [row, 0],
      End: [row, nx - 1],
    };
    if (event.key === "Enter" || event.key === " ") this.actions.pin(at);
    else if (event.key in moves) this.#point(moves[event.key][0] * nx + moves[event.key][1]);
    else return;
    event.preventDefault();
  }
}
