/** Keys that work everywhere in the page. */

import { chosenLayers } from "./layers.js";
import { keysAreOn } from "./shell.js";
import { switchLayer } from "./toolbar.js";

/**
 * @param {{store: *, shell: *, picture: *, pictures: *, isOpen: function(): boolean}} context
 */
export function keys({ store, shell, picture, pictures, isOpen }) {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    if (shell.help.open) return; // a dialog closes itself
    if (event.key === "Escape") return escape(event);
    if (!keysAreOn() || isWriting(event.target)) return undefined;
    const act = actions[event.key] ?? layerKey(event.key);
    if (!act) return undefined;
    event.preventDefault();
    return act();
  });

  const replace = (changes) => store.set(changes, { replace: true });
  const whenOpen = (act) => () => isOpen() && act(store.current);
  const actions = {
    "?": () => shell.toggleHelp(),
    "/": () => pictures.search(),
    j: whenOpen(() => picture.go(1)),
    k: whenOpen(() => picture.go(-1)),
    m: whenOpen(({ mode }) => replace({ mode: mode === "side" ? "one" : "side" })),
    g: whenOpen(({ lines }) => replace({ lines: lines === "1" ? "0" : "1" })),
    o: whenOpen(({ opacity }) => {
      if (opacity !== "0") seen = opacity;
      replace({ opacity: opacity === "0" ? seen : "0" });
    }),
  };
  let seen = "65"; // opacity before the overlay was switched off

  function layerKey(key) {
    if (!/^[1-9]$/.test(key) || !isOpen()) return null;
    return () => {
      const { layers: available } = picture;
      const shown = chosenLayers(
        store.current.layers,
        available,
        picture.server(),
        store.current.mode,
      );
      switchLayer(store, available, shown, Number(key) - 1);
    };
  }

  function escape(event) {
    if (isWriting(event.target)) return event.target.blur();
    if (!isOpen()) return undefined;
    if (store.current.patch !== "") return store.set({ patch: "" });
    return store.set({ id: "" });
  }
}

function isWriting(element) {
  return element.matches?.("input:not([type=range], [type=checkbox]), textarea, select");
}
