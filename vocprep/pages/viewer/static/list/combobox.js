/** A list of classes that can be searched by typing. */

import { fill, h, swatch } from "../dom.js";

const MOST = 60; // options that are shown at once

/**
 * The options that fit what was typed: names that begin with it first.
 * @param {Array<{name: string}>} options
 * @param {string} typed
 * @returns {Array<*>}
 */
export function matching(options, typed) {
  const words = typed.trim().toLowerCase();
  if (words === "") return options;
  const begins = (option) => option.name.toLowerCase().startsWith(words);
  const found = options.filter((option) => option.name.toLowerCase().includes(words));
  return [...found.filter(begins), ...found.filter((option) => !begins(option))];
}

export class Combobox {
  /**
   * @param {string} label
   * @param {string} placeholder what stands for no choice
   * @param {function(string): void} choose called with an id, empty for none
   */
  constructor(label, placeholder, choose) {
    this.choose = choose;
    this.options = [];
    this.value = "";
    this.active = -1;
    this.input = h("input", {
      type: "text",
      role: "combobox",
      placeholder,
      autocomplete: "off",
      spellcheck: "false",
      "aria-expanded": "false",
      "aria-controls": "class-options",
      "aria-autocomplete": "list",
      "aria-label": label,
      oninput: () => this.#open(this.input.value),
      onfocus: () => this.input.select(),
      onclick: () => this.#open(),
      onblur: () => this.#close(),
      onkeydown: (event) => this.#pressed(event),
    });
    this.listbox = h("ul", {
      id: "class-options",
      role: "listbox",
      "aria-label": label,
      hidden: true,
      onpointerdown: (event) => event.preventDefault(), // the focus stays in the field
    });
    this.element = h(
      "div",
      { class: "field combobox" },
      h("span", { "aria-hidden": "true" }, label),
      h("div", {}, this.input, this.listbox),
    );
  }

  /**
   * @param {Array<{id: string, name: string, colour: string, note: string}>} options
   * @param {string} value id of the chosen one, empty for none
   */
  set(options, value) {
    this.options = options;
    this.value = value;
    if (document.activeElement !== this.input) this.#showValue();
    if (this.listbox.hidden) return;
    // Notes, which are numbers of pictures, may be known only now.
    const known = new Map(options.map((option) => [option.id, option]));
    this.found = this.found.map((option) => known.get(option.id) ?? option);
    this.#draw();
  }

  #showValue() {
    const chosen = this.options.find((option) => option.id === this.value);
    this.input.value = chosen?.name ?? (this.value === "" ? "" : `class ${this.value}`);
  }

  /** Show what fits the typed text; everything, the chosen one in sight, where none was typed. */
  #open(typed = null) {
    const none = { id: "", name: this.input.placeholder, colour: "transparent", note: "" };
    const isEmpty = (typed ?? "").trim() === "";
    this.found = [...(isEmpty ? [none] : []), ...matching(this.options, typed ?? "")];
    const chosen = this.found.findIndex((option) => option.id === this.value);
    this.active = typed === null ? Math.max(chosen, 0) : 0;
    this.found = this.found.slice(0, Math.max(MOST, this.active + 1));
    this.listbox.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.#draw();
  }

  #close() {
    this.listbox.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    this.#showValue();
  }

  #draw() {
    const items = this.found.map((option, index) =>
      h(
        "li",
        {
          role: "option",
          id: `class-option-${index}`,
          "aria-selected": String(index === this.active),
          onclick: () => this.#take(option),
        },
        swatch(option.colour),
        h("span", {}, option.name),
        h("small", {}, option.note),
      ),
    );
    const nothing = h(
      "li",
      { class: "quiet", role: "option", "aria-disabled": "true" },
      "no class",
    );
    fill(this.listbox, items.length > 0 ? items : nothing);
    const active = this.listbox.children[this.active];
    if (items.length > 0) this.input.setAttribute("aria-activedescendant", active.id);
    active?.scrollIntoView({ block: "nearest" });
  }

  #take(option) {
    this.value = option.id;
    this.#close();
    this.choose(option.id);
  }

  #pressed(event) {
    const isOpen = !this.listbox.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen) return this.#open();
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.active = Math.min(Math.max(this.active + step, 0), this.found.length - 1);
      return this.#draw();
    }
    if (event.key === "Enter" && isOpen && this.found[this.active]) {
      event.preventDefault();
      return this.#take(this.found[this.active]);
    }
    if (event.key === "Escape" && isOpen) {
      event.stopPropagation();
      return this.#close();
    }
    return undefined;
  }
}
