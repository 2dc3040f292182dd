/** The list of pictures as a grid of which only the rows in sight exist. */

import { button, fill, h, settled } from "../dom.js";
import { counted, plural } from "../numbers.js";
import { gridShape, movedIndex, rowCount, visibleRows } from "./rows.js";
import { tile } from "./tile.js";

const EXPECTED = 200; // tiles that stand in for pictures while their number is not known
const SETTLED = 120; // milliseconds without scrolling after which thumbnails are asked for

export class Grid {
  /**
   * @param {import("./list.js").PictureList} list
   * @param {{href: function(string): string, open: function(string): void,
   *   moved: function(number): void, announce: function(string): void}} actions
   */
  constructor(list, actions) {
    this.list = list;
    this.actions = actions;
    this.look = null; // how tiles are made: see tile.js
    this.cursor = 0;
    this.rows = new Map();
    this.lastTop = 0;
    this.isFast = false;
    this.body = h("div", { class: "rows", role: "presentation" });
    this.message = h("div", { class: "message", hidden: true });
    this.element = h(
      "div",
      {
        class: "grid",
        role: "grid",
        tabindex: "0",
        "aria-label": "Pictures",
        onscroll: () => this.#scrolled(),
        onkeydown: (event) => this.#pressed(event),
      },
      this.body,
    );
    this.settle = settled(SETTLED, () => this.#settled());
    new ResizeObserver(() => this.#resized()).observe(this.element);
  }

  /**
   * Show the list from one of its pictures on.
   * @param {Object<string, *>} look see tile.js
   * @param {number} at index
   */
  show(look, at) {
    this.look = look;
    this.cursor = at;
    this.at = at;
    this.#clear();
    this.refresh();
    this.scrollTo(at);
  }

  /**
   * Come back to the list as it was left.
   * @param {number|null} cursor index of the picture that was looked at last
   */
  resume(cursor) {
    this.element.scrollTop = this.lastTop;
    if (cursor !== null) this.cursor = cursor;
    this.refresh();
    if (this.shape) this.#reveal();
  }

  /** Draw again what is in sight, since pictures have arrived. */
  refresh() {
    if (!this.look || this.element.clientWidth === 0) return;
    const { total, error, waiting } = this.list;
    this.#showMessage(error ?? waiting ?? (total === 0 ? "No picture fits these filters." : null));
    this.shape = gridShape(this.body.clientWidth, this.look.width, this.look.ratio);
    const rows = rowCount(total ?? (error ? 0 : EXPECTED), this.shape);
    this.listed = Math.min(total ?? 0, rows * this.shape.columns);
    this.element.setAttribute("aria-rowcount", String(rows));
    this.element.setAttribute("aria-colcount", String(this.shape.columns));
    this.body.style.height = `${rows * this.shape.height}px`;
    this.body.style.setProperty("--columns", String(this.shape.columns));
    this.body.style.setProperty("--picture-height", `${this.shape.pictureHeight}px`);
    if (total !== null && this.at > 0) this.scrollTo(this.at); // the length is known only now
    this.#draw();
  }

  /**
   * Scroll so that a picture is in the first row.
   * @param {number} index
   */
  scrollTo(index) {
    if (!this.shape) return;
    this.element.scrollTop = Math.floor(index / this.shape.columns) * this.shape.height;
    if (this.list.total !== null) this.at = 0;
  }

  #draw() {
    const { first, end } = visibleRows(this.element, this.shape.height, this.body.offsetHeight);
    const { columns } = this.shape;
    if (!this.isFast) this.list.need(first * columns, end * columns);
    for (const [number, row] of this.rows) {
      if (number < first || number >= end) this.#remove(number, row);
    }
    for (let number = first; number < end; number += 1) this.#drawRow(number);
    this.#markCursor();
  }

  #drawRow(number) {
    const { columns, height } = this.shape;
    const pictures = [];
    for (let column = 0; column < columns; column += 1) {
      const index = number * columns + column;
      if (this.list.total === null || index < this.list.total) pictures.push(this.list.at(index));
    }
    const drawn = this.rows.get(number);
    const isSame = drawn?.pictures.length === pictures.length;
    if (isSame && pictures.every((picture, index) => picture === drawn.pictures[index])) return;
    if (drawn) this.#remove(number, drawn);
    const cells = pictures.map((picture, column) =>
      tile(picture, number * columns + column, this.look, this.actions),
    );
    const element = h("div", { class: "row", role: "row", "aria-rowindex": number + 1 }, cells);
    element.style.transform = `translateY(${number * height}px)`;
    this.rows.set(number, { element, pictures });
    this.body.append(element);
    if (!this.isFast) loadPictures(element);
  }

  #remove(number, row) {
    // Without an address, the browser calls off what it has not loaded yet.
    for (const image of row.element.querySelectorAll("img")) image.removeAttribute("src");
    row.element.remove();
    this.rows.delete(number);
  }

  #clear() {
    for (const [number, row] of this.rows) this.#remove(number, row);
  }

  #scrolled() {
    if (this.element.clientHeight === 0) return; // the list is hidden
    const top = this.element.scrollTop;
    this.isFast = Math.abs(top - this.lastTop) > this.element.clientHeight;
    this.lastTop = top;
    this.settle();
    requestAnimationFrame(() => this.shape && this.#draw());
  }

  #settled() {
    this.isFast = false;
    if (!this.shape || this.element.clientHeight === 0) return;
    this.#draw();
    for (const row of this.rows.values()) loadPictures(row.element);
    const row = Math.round(this.element.scrollTop / this.shape.height);
    if (this.list.total !== null) this.actions.moved(row * this.shape.columns);
  }

  #resized() {
    if (!this.shape || this.element.clientWidth === 0) return;
    const first = Math.round(this.element.scrollTop / this.shape.height) * this.shape.columns;
    const { columns } = gridShape(this.body.clientWidth, this.look.width, this.look.ratio);
    const isOther = columns !== this.shape.columns;
    if (isOther) this.#clear();
    this.refresh();
    if (isOther) this.scrollTo(first);
  }

  #pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.shape) return;
    if (event.key === "Enter" || event.key === " ") {
      const picture = this.list.at(this.cursor);
      if (picture?.status === "record") this.actions.open(picture.id, this.cursor);
      event.preventDefault();
      return;
    }
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.shape.height));
    const next = movedIndex(event.key, this.cursor, this.listed, this.shape.columns, page);
    if (next === null) return;
    event.preventDefault();
    this.cursor = next;
    this.#reveal();
    this.#markCursor();
  }

  #reveal() {
    const top = Math.floor(this.cursor / this.shape.columns) * this.shape.height;
    const bottom = top + this.shape.height;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.element.scrollTop = bottom - clientHeight + 12;
    this.#draw();
  }

  #markCursor() {
    const id = `tile-${this.cursor}`;
    for (const marked of this.body.querySelectorAll(".is-current")) {
      if (marked.id !== id) marked.classList.remove("is-current");
    }
    const current = this.body.querySelector(`#${id}`);
    if (!current) return this.element.removeAttribute("aria-activedescendant");
    current.classList.add("is-current");
    return this.element.setAttribute("aria-activedescendant", id);
  }

  #showMessage(text) {
    this.message.hidden = text === null;
    if (this.message.textContent === (text ?? "")) return;
    const again = this.list.error ? button("Try again", () => this.#again()) : null;
    fill(this.message, text, again);
    if (text) this.actions.announce(text);
  }

  #again() {
    this.list.reset(this.list.query);
    this.#clear();
    this.refresh();
  }

  /** @returns {string} how many pictures there are, for people */
  get count() {
    const { total, error } = this.list;
    if (error !== null) return "";
    if (total === null) return "Loading…";
    const all = plural(total, "picture");
    if (total === this.listed) return all;
    return `${all}, of which ${counted(this.listed)} can be scrolled to: filter, or turn the order`;
  }
}

function loadPictures(element) {
  for (const image of element.querySelectorAll("img[data-src]")) {
    image.src = image.dataset.src;
    delete image.dataset.src;
  }
}
