/** What stands around every view: the name of what is shown, the tabs, runs, theme, help. */

import { button, fill, h, refill } from "./dom.js";
import { versionOf } from "./layers.js";
import { counted, plural } from "./numbers.js";

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const KEYS = [
  ["Arrow keys, Page Up, Page Down, Home, End", "move through the list, or from patch to patch"],
  ["Enter", "open the picture; show patches similar to the one in the frame"],
  ["Escape", "close what is open"],
  ["j, k", "next and previous picture of the list"],
  ["1 to 9", "show or hide a layer"],
  ["m", "layers side by side, or one at a time"],
  ["g", "patch grid"],
  ["o", "overlay on and off"],
  ["/", "search ids"],
  ["?", "this page"],
];

/** The bar at the top. */
export class Shell {
  /**
   * @param {HTMLElement} element
   * @param {{store: *, server: function(): *}} context
   */
  constructor(element, { store, server }) {
    this.element = element;
    this.store = store;
    this.server = server;
    this.help = helpDialog();
    document.body.append(this.help);
    useTheme(localStorage.getItem("theme") ?? "auto");
  }

  /** @param {import("./state.js").State} state */
  show(state) {
    const server = this.server();
    const version = versionOf(server, state.v);
    const title = state.id === "" ? version.name : `${state.id} · ${version.name}`;
    document.title = `${title} · vocprep view`;
    refill(
      this.element,
      h("a", { class: "brand", href: "?" }, [
        h("img", { src: "static/icon.svg", alt: "vocprep", width: "22", height: "22" }),
        h("span", { "aria-hidden": "true" }, "vocprep"),
      ]),
      h("div", { class: "version" }, [
        h("h1", { title: version.name }, version.name),
        h("code", { title: `content_id ${version.content_id}` }, version.short_id),
      ]),
      this.#tabs(state, server),
      h("div", { class: "runs" }, readingChip(version.columns), server.runs.map(runChip)),
      h("div", { class: "group" }, [
        themeButton(),
        button("?", () => this.toggleHelp(), { class: "plain", "aria-label": "Keys and help" }),
      ]),
    );
  }

  /** Open or close the page about keys. */
  toggleHelp() {
    if (this.help.open) this.help.close();
    else this.help.showModal();
  }

  #tabs(state, server) {
    const names = { pictures: "Pictures", classes: "Classes" };
    if (server.runs.length > 0) names.confusion = "Confusion";
    const links = Object.entries(names).map(([view, name]) => {
      const isHere = state.view === view && (state.id === "" || view === "pictures");
      const href = this.store.url({ view, id: "", patch: "" });
      return h("a", { href, "aria-current": isHere ? "page" : null, "data-key": view }, name);
    });
    return h("nav", { "aria-label": "Views" }, links);
  }
}

/** @returns {boolean} whether keys of one character do something */
export function keysAreOn() {
  return localStorage.getItem("keys") !== "off";
}

function readingChip({ state, done, total, error }) {
  if (state === "failed") return h("span", { class: "run is-failed" }, h("small", {}, error));
  if (state !== "reading") return null;
  const label = "Classes of the pictures";
  return h("span", { class: "run" }, [
    h("small", {}, `classes: ${counted(done)} of ${plural(total, "picture")}`),
    h("progress", { max: total || 1, value: done, "aria-label": label }),
  ]);
}

function runChip(run) {
  const about = [`Run ${Number(run.key) + 1}: ${run.name}`, `epoch ${run.epoch}`, run.note];
  const title = about.filter(Boolean).join(", ");
  const said = {
    waiting: "to be scored",
    scoring: `scored ${counted(run.scored ?? 0)} of ${counted(run.total ?? 0)}`,
    failed: `not scored: ${run.error}`,
  }[run.state];
  const progress =
    run.state === "scoring"
      ? h("progress", { max: run.total || 1, value: run.scored ?? 0, "aria-label": title })
      : null;
  return h("span", { class: `run is-${run.state}`, title: said ? `${title}; ${said}` : title }, [
    h("b", {}, Number(run.key) + 1),
    h("span", { class: "name" }, run.name),
    progress,
    said ? h("small", {}, said) : null,
  ]);
}

function themeButton() {
  const now = document.documentElement.dataset.theme ?? "auto";
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(now) + 1) % names.length];
  const onclick = (event) => {
    useTheme(next);
    event.currentTarget.replaceWith(themeButton());
    document.querySelector("[data-key=theme]").focus();
  };
  const label = `Colours: ${THEMES[now]}; change to ${THEMES[next]}`;
  return button(THEMES[now], onclick, { class: "plain", "data-key": "theme", "aria-label": label });
}

function useTheme(name) {
  const { dataset } = document.documentElement;
  if (name in THEMES && name !== "auto") dataset.theme = name;
  else delete dataset.theme;
  localStorage.setItem("theme", name);
}

function helpDialog() {
  const rows = KEYS.map(([keys, what]) =>
    h("tr", {}, h("th", { scope: "row" }, keys), h("td", {}, what)),
  );
  const choice = h("input", {
    type: "checkbox",
    checked: keysAreOn(),
    onchange: (event) => localStorage.setItem("keys", event.target.checked ? "on" : "off"),
  });
  const dialog = h("dialog", { "aria-labelledby": "help-title" });
  fill(
    dialog,
    h("h2", { id: "help-title" }, "Keys"),
    h("table", { class: "keys" }, h("tbody", {}, rows)),
    h("label", { class: "field" }, choice, "Keys of one character are on"),
    h("p", { class: "quiet" }, "The address holds everything that is shown: copy it to come back."),
    button("Close", () => dialog.close()),
  );
  return dialog;
}
