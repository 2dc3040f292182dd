/** The list of pictures with its filters. */

import { Filters } from "./filters.js";
import { ask } from "../api.js";
import { h } from "../dom.js";
import { Grid } from "./grid.js";
import { availableLayers, chosenLayers, versionOf } from "../layers.js";
import { PictureList } from "./list.js";
import { differ } from "../state.js";

const WIDTHS = { s: 112, m: 168, l: 260 };
const QUERY = ["v", "split", "class", "text", "status", "sort", "order"];

export class PicturesView {
  /** @param {{store: *, server: function(): *, announce: function(string): void}} context */
  constructor({ store, server, announce }) {
    this.store = store;
    this.server = server;
    this.announce = announce;
    this.list = new PictureList(() => this.#arrived());
    this.filters = new Filters({ store, server });
    this.count = h("p", { class: "count", role: "status" });
    this.counts = new Map();
    this.grid = new Grid(this.list, {
      href: (id, index) => store.url({ id, patch: "", at: String(index) }),
      open: (id, index) => store.set({ id, patch: "", at: String(index) }),
      moved: (at) => store.current.id === "" && store.remember(String(at)),
      announce,
    });
    this.element = h("section", { class: "pictures", "aria-label": "Pictures" }, [
      this.filters.element,
      this.count,
      this.grid.message,
      this.grid.element,
    ]);
  }

  /** What has the focus when the view opens. */
  get focused() {
    return this.grid.element;
  }

  /**
   * @param {import("../state.js").State} state
   * @returns {Object<string, string>} the question for the list
   */
  query(state) {
    return Object.fromEntries(QUERY.map((key) => [key, state[key]]));
  }

  /**
   * @param {import("../state.js").State} state
   * @param {boolean} isOther whether another view was shown before
   * @param {number|null} cursor index of the picture that was looked at last
   */
  show(state, isOther, cursor) {
    this.filters.show(state, this.counts);
    this.#countClasses(state);
    const isSame = this.state && !differ(state, this.state, [...QUERY, "show", "size"]);
    this.state = state;
    if (isSame && this.list.total !== null) {
      if (isOther) this.grid.resume(cursor);
      return;
    }
    this.grid.show(this.#look(state), Number(state.at));
    this.#arrived();
  }

  /** Nothing is stopped: the list is what next and previous go by. */
  leave() {}

  /** Put the cursor into the field that searches ids. */
  search() {
    if (this.store.current.id !== "" || this.store.current.view !== "pictures") {
      this.store.set({ id: "", patch: "", view: "pictures" });
    }
    this.filters.element.setAttribute("open", "");
    this.filters.text.focus();
    this.filters.text.select();
  }

  #look(state) {
    const server = this.server();
    const version = versionOf(server, state.v);
    const available = availableLayers(server, state.v);
    const layers = chosenLayers(state.show, available, server, "side").slice(0, 2);
    const isKnown = state.show
      .split(",")
      .every((text) => layers.some((item) => item.text === text));
    const shown = isKnown ? layers : available.slice(0, 1);
    const { sort } = state;
    const classes = new Map(version.classes.map((item) => [item.id, item]));
    return {
      layers: shown,
      width: WIDTHS[state.size] * shown.length,
      ratio: shown.length,
      version: state.v,
      classes,
      sort,
    };
  }

  #arrived() {
    if (this.element.hidden) return;
    this.grid.refresh();
    this.count.textContent = this.grid.count;
  }

  /** Ask how many pictures each class is in, for the list of classes. */
  async #countClasses({ v, split }) {
    const key = `${v} ${split}`;
    const { splits, columns } = versionOf(this.server(), v);
    if (key === this.counted || columns.state !== "ready") return;
    this.counted = key;
    const names = splits.map(({ name }) => name).filter((name) => split === "" || name === split);
    try {
      const answers = await Promise.all(names.map((name) => ask("classes", { v, split: name })));
      const counts = new Map();
      for (const { id, pictures } of answers.flatMap(({ classes }) => classes)) {
        counts.set(id, (counts.get(id) ?? 0) + pictures);
      }
      this.counts = counts;
      this.filters.show(this.store.current, counts);
    } catch {
      this.counted = null; // they are a help only; asked for again with the next filter
    }
  }
}
