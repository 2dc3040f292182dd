/** A list of pictures of any length, of which the server is asked for pages when they are in sight. */

import { askUntilReady } from "../api.js";

const PAGE = 100; // pictures
const KEPT = 60; // pages

export class PictureList {
  /** @param {function(): void} changed called when pictures, their number or an error arrive */
  constructor(changed) {
    this.changed = changed;
    this.query = null;
    this.total = null;
    this.error = null;
    this.waiting = null;
    this.pages = new Map();
    this.fresh = new Set(); // numbers of pages that need not be asked for again
    this.requests = new Map();
  }

  /**
   * List other pictures, or the same ones anew.
   * @param {Object<string, string>} query as for the server's `pictures`
   */
  reset(query) {
    for (const request of this.requests.values()) request.abort();
    this.query = query;
    this.total = null;
    this.error = null;
    this.waiting = null;
    this.pages = new Map();
    this.fresh = new Set();
    this.requests = new Map();
  }

  /** Ask anew for what is in sight, since the server knows more; the old is shown until then. */
  renew() {
    this.fresh = new Set();
    this.error = null;
    this.changed();
  }

  /**
   * List the pictures of a query, unless they are listed already.
   * @param {Object<string, string>} query
   */
  aim(query) {
    if (JSON.stringify(query) !== JSON.stringify(this.query)) this.reset(query);
  }

  /**
   * @param {number} index
   * @returns {*} the picture, undefined while it is not known
   */
  at(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /**
   * Ask for the pictures of a range; what was asked for and is far from it is called off.
   * @param {number} first
   * @param {number} end exclusive
   */
  need(first, end) {
    if (this.error !== null) return; // until it is reset
    const from = Math.floor(Math.max(first, 0) / PAGE);
    const to = Math.floor(Math.max(end - 1, 0) / PAGE);
    for (const [number, request] of this.requests) {
      if (number < from - 1 || number > to + 1) {
        request.abort();
        this.requests.delete(number);
      }
    }
    for (let number = from; number <= to; number += 1) {
      const beyond = this.total !== null && number * PAGE >= this.total;
      if (!beyond && !this.fresh.has(number) && !this.requests.has(number)) this.#ask(number);
    }
  }

  /**
   * One picture by its place in the list.
   * @param {number} index
   * @param {AbortSignal} signal
   * @returns {Promise<*>} undefined beyond the ends
   */
  async fetchAt(index, signal) {
    if (index < 0 || (this.total !== null && index >= this.total)) return undefined;
    const known = this.at(index);
    if (known) return known;
    const query = { ...this.query, offset: index, limit: 1 };
    return (await askUntilReady("pictures", query, signal)).pictures[0];
  }

  /**
   * The place of a picture in the list.
   * @param {string} id
   * @param {AbortSignal} signal
   * @returns {Promise<number|null>} null when it is not in it
   */
  async position(id, signal) {
    for (const [number, pictures] of this.pages) {
      const index = pictures.findIndex((picture) => picture.id === id);
      if (index >= 0) return number * PAGE + index;
    }
    const query = { ...this.query, offset: 0, limit: 1, find: id };
    const answer = await askUntilReady("pictures", query, signal);
    this.total = answer.total;
    return answer.position ?? null;
  }

  #keep(number, pictures) {
    this.pages.delete(number);
    this.pages.set(number, pictures);
    this.fresh.add(number);
    if (this.pages.size <= KEPT) return;
    const [oldest] = this.pages.keys();
    this.pages.delete(oldest);
    this.fresh.delete(oldest);
  }

  async #ask(number) {
    const request = new AbortController();
    const { query } = this;
    this.requests.set(number, request);
    const waiting = (sentence) => {
      this.waiting = sentence;
      this.changed();
    };
    try {
      const page = { ...query, offset: number * PAGE, limit: PAGE };
      const answer = await askUntilReady("pictures", page, request.signal, waiting);
      this.waiting = null;
      this.total = answer.total;
      this.#keep(number, answer.pictures);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.error = error.message;
    }
    if (this.query !== query) return;
    this.requests.delete(number);
    this.changed();
  }
}
