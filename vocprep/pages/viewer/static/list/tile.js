/** One picture of the list. */

import { imageUrl } from "../api.js";
import { h, swatch } from "../dom.js";
import { layerQuery } from "../layers.js";
import { difference, fixed, percent } from "../numbers.js";

/**
 * Make a picture's tile.
 *
 * `look` has: layers (of which a tile shows one, or two side by side), width and ratio (of a tile),
 * version (key), classes (by id), sort (as in the address).
 * @param {*} picture of the server's `pictures`; undefined while it is loading
 * @param {number} index in the list
 * @param {Object<string, *>} look
 * @param {{href: function(string, number): string}} actions
 * @returns {HTMLElement}
 */
export function tile(picture, index, look, actions) {
  const cell = { class: "tile", role: "gridcell", id: `tile-${index}` };
  if (!picture)
    return h("div", { ...cell, class: "tile is-loading" }, h("div", { class: "frame" }));
  if (picture.status !== "record") return quarantined(picture, cell);
  const names = picture.classes.map((id) => look.classes.get(id)?.name ?? `class ${id}`);
  const badge = measure(picture, look.sort);
  const images = look.layers.map((layer) => thumbnail(picture, layer, look.version));
  return h(
    "div",
    cell,
    h(
      "a",
      { href: actions.href(picture.id, index), tabindex: "-1" },
      h("div", { class: "frame" }, images),
      h(
        "div",
        { class: "caption" },
        h("span", { class: "id", title: picture.id }, picture.id),
        badge ? badgeOf(badge) : null,
      ),
      h("div", { class: "dots", title: names.join(", ") }, dots(picture, look), names.join(" · ")),
    ),
  );
}

/**
 * What a picture is sorted by, for people.
 * @param {*} picture
 * @param {string} sort such as "score:0"
 * @returns {{name: string, text: string}|null} null where it is not worth a place
 */
export function measure(picture, sort) {
  const [name, first, second] = sort.split(":");
  if (name === "score") return named("pixel accuracy", percent(picture.scores[first]));
  if (name === "loss") return named("loss", fixed(picture.losses[first]));
  if (name === "quality") return named("label quality", fixed(picture.quality));
  if (name === "difference") {
    const [one, other] = [picture.scores[first], picture.scores[second]];
    const between = one === undefined || other === undefined ? null : other - one;
    return named("difference of pixel accuracy, in points", difference(between));
  }
  if (name === "changed") return picture.changed ? named("changed", picture.changed) : null;
  if (name === "size") return named("patches", picture.grid.join("×"));
  return null;
}

function named(name, text) {
  return { name, text };
}

function badgeOf({ name, text }) {
  return h(
    "span",
    { class: "badge", title: name },
    h("span", { class: "unseen" }, `${name} `),
    text,
  );
}

function thumbnail(picture, layer, version) {
  const isPhoto = layer.name === "photo" && layer.version === version;
  const query = isPhoto ? { v: version, layer: "thumbnail" } : layerQuery(layer);
  // Set as the address when the tile has come to rest.
  return h("img", {
    "data-src": imageUrl({ ...query, id: picture.id }),
    alt: "",
    decoding: "async",
    draggable: "false",
    onload: (event) => event.target.classList.add("is-there"),
    onerror: (event) => event.target.classList.add("is-missing"),
  });
}

function dots(picture, look) {
  return picture.classes.map((id) => swatch(look.classes.get(id)?.colour ?? "transparent"));
}

function quarantined(picture, cell) {
  return h(
    "div",
    { ...cell, class: "tile is-quarantined" },
    h("div", { class: "frame" }, h("p", {}, picture.reason)),
    h("div", { class: "caption" }, h("span", { class: "id", title: picture.id }, picture.id)),
    h("div", { class: "dots" }, `quarantined, ${picture.split}`),
  );
}
