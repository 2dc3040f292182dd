/** The controls above a picture: layers, how they are laid out, opacity, the patch grid. */

import { h, toggle } from "./dom.js";

/**
 * @param {import("./state.js").Store} store
 * @param {import("./layers.js").Layer[]} available
 * @param {import("./layers.js").Layer[]} layers that are shown
 * @returns {HTMLElement[]}
 */
export function layerBar(store, available, layers) {
  const { mode, lines, opacity } = store.current;
  const buttons = available.map((layer, index) =>
    toggle(
      layer.title,
      layers.includes(layer),
      () => switchLayer(store, available, layers, index),
      {
        "aria-keyshortcuts": index < 9 ? String(index + 1) : null,
        title: index < 9 ? `Key ${index + 1}` : null,
      },
    ),
  );
  const set = (changes) => store.set(changes, { replace: true });
  return [
    h("div", { class: "group", role: "group", "aria-label": "Layers" }, buttons),
    h(
      "div",
      { class: "group", role: "group", "aria-label": "Layout" },
      toggle("Side by side", mode === "side", () => set({ mode: "side" }), { title: "Key m" }),
      toggle("One", mode === "one", () => set({ mode: "one" }), { title: "Key m" }),
    ),
    toggle("Grid", lines === "1", () => set({ lines: lines === "1" ? "0" : "1" }), {
      title: "Grid of patches, key g",
    }),
    h(
      "label",
      { class: "field" },
      h("span", {}, "Overlay"),
      h("input", {
        type: "range",
        min: "0",
        max: "100",
        step: "5",
        value: opacity,
        "data-key": "opacity",
        "aria-label": "Opacity of the overlay in per cent",
        title: "Key o: without overlay",
        oninput: (event) => set({ opacity: event.target.value }),
      }),
    ),
  ];
}

/**
 * Show another layer: in place of the one that is shown, or beside those that are.
 * @param {import("./state.js").Store} store
 * @param {import("./layers.js").Layer[]} available
 * @param {import("./layers.js").Layer[]} layers that are shown
 * @param {number} index of the layer among those available
 */
export function switchLayer(store, available, layers, index) {
  const layer = available[index];
  if (!layer) return;
  if (store.current.mode === "one") {
    store.set({ layers: layer.text }, { replace: true });
    return;
  }
  const chosen = available.filter((item) => (item === layer) !== layers.includes(item));
  if (chosen.length === 0) return; // one at least is shown
  store.set({ layers: chosen.map((item) => item.text).join(",") }, { replace: true });
}
