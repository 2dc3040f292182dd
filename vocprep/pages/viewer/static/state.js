/** What is shown, as the address says it: each view can be shared, and back and forward work. */

/** Every key of the address with the value that is left out of it. All values are texts. */
export const DEFAULTS = Object.freeze({
  view: "pictures", // pictures, classes, confusion
  v: "a", // version
  split: "",
  class: "",
  text: "",
  status: "record",
  sort: "id",
  order: "asc",
  show: "photo", // layer of the tiles, or two of them
  size: "m",
  at: "0", // index of the first picture in sight
  id: "", // the picture that is open
  patch: "",
  near: "", // split of similar patches; empty: that of the picture
  layers: "", // of the open picture, separated by commas; empty: those that suit
  mode: "side", // side, one
  opacity: "65",
  lines: "1",
  r: "", // the run of the tables
  truth: "",
  predicted: "",
  by: "pixels", // column that the class table is sorted by
  dir: "desc",
});

const ALLOWED = {
  view: /^(pictures|classes|confusion)$/,
  v: /^[a-z]$/,
  class: /^\d{1,5}$/,
  status: /^(record|quarantined)$/,
  sort: /^(id|size|quality|score:\d|loss:\d|difference:\d:\d|changed:[a-z])$/,
  order: /^(asc|desc)$/,
  size: /^[sml]$/,
  at: /^\d{1,9}$/,
  patch: /^\d{1,7}$/,
  mode: /^(side|one)$/,
  opacity: /^(\d|[1-9]\d|100)$/,
  lines: /^[01]$/,
  r: /^\d$/,
  truth: /^\d{1,5}$/,
  predicted: /^\d{1,5}$/,
  by: /^(id|name|pixels|pictures|iou:\d|accuracy:\d|difference)$/,
  dir: /^(asc|desc)$/,
};

/** @typedef {typeof DEFAULTS} State */

/**
 * Read an address; what does not fit is as if it were not there.
 * @param {string} search such as "?split=val"
 * @returns {State}
 */
export function parse(search) {
  const state = { ...DEFAULTS };
  for (const [key, value] of new URLSearchParams(search)) {
    const known = Object.hasOwn(DEFAULTS, key);
    if (known && (!ALLOWED[key] || ALLOWED[key].test(value))) state[key] = value;
  }
  return state;
}

/**
 * Write an address; the inverse of `parse`.
 * @param {State} state
 * @returns {string}
 */
export function format(state) {
  const pairs = Object.keys(DEFAULTS)
    .filter((key) => state[key] !== DEFAULTS[key])
    .map((key) => [key, state[key]]);
  return `?${new URLSearchParams(pairs)}`;
}

/**
 * @param {State} one
 * @param {State} other
 * @param {string[]} keys
 * @returns {boolean} whether they differ in one of the keys
 */
export function differ(one, other, keys) {
  return keys.some((key) => one[key] !== other[key]);
}

/** The current state, held by the address of the window. */
export class Store {
  /** @param {Window} window */
  constructor(window) {
    this.window = window;
    this.listeners = [];
    this.current = parse(window.location.search);
    window.addEventListener("popstate", () => this.#become(parse(window.location.search)));
  }

  /** @param {function(State, State): void} listener called with the new state and the one before */
  subscribe(listener) {
    this.listeners.push(listener);
  }

  /**
   * Change the state; `replace` leaves no step to come back to.
   * @param {Partial<State>} changes
   * @param {{replace?: boolean}} [how]
   */
  set(changes, { replace = false } = {}) {
    const next = { ...this.current, ...changes };
    const address = format(next);
    if (address === format(this.current)) return;
    this.window.history[replace ? "replaceState" : "pushState"](null, "", address);
    this.#become(next);
  }

  /**
   * The address of a changed state, for links.
   * @param {Partial<State>} changes
   * @returns {string}
   */
  url(changes) {
    return format({ ...this.current, ...changes });
  }

  /**
   * Follow a link that `url` has made.
   * @param {string} address
   */
  open(address) {
    this.set(parse(address));
  }

  /**
   * Remember where the list stands, without telling anybody.
   * @param {string} at
   */
  remember(at) {
    this.current = { ...this.current, at };
    this.window.history.replaceState(null, "", format(this.current));
  }

  #become(next) {
    const previous = this.current;
    this.current = next;
    for (const listener of this.listeners) listener(next, previous);
  }
}
