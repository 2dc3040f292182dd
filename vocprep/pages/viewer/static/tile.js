/** One picture of the list. */

import { imageUrl } from "./api.js";
import { h, swatch } from "./dom.js";
import { layerQuery } from "./layers.js";
import { difference, fixed, percent } from "./numbers.js";

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
  if (!picture) return h("div", { ...cell, class: "tile is-loading" }, h("div", { class: "frame" }));
  if (picture.status !== "record") return quarantined(picture, cell);
  const names = picture.classes.map((id) => look.classes.get(id)?.name ?? `class ${id}`);
  const badge = measure(picture, look.sort);
  const label = [picture.id, badge?.spoken, names.join(", ")].filter(Boolean).join("; ");
  const images = look.layers.map((layer) => thumbnail(picture, layer, look.version));
  return h(
    "div",
    cell,
    h(
      "a",
      { href: actions.href(picture.id, index), tabindex: "-1", "aria-label": label },
      h("div", { class: "frame" }, images),
      h(
        "div",
        { class: "caption" },
        h("span", { class: "id", title: picture.id }, picture.id),
        badge ? h("span", { class: "badge", title: badge.spoken }, badge.text) : null,
      ),
      h("div", { class: "dots", title: names.join(", ") }, dots(picture, look), names.join(" · ")),
    ),
  );
}

/**
 * What a picture is sorted by, for people.
 * @param {*} picture
 * @param {string} sort such as "score:0"
 * @returns {{text: string, spoken: string}|null} null where it is not worth a place
 */
export function measure(picture, sort) {
  const [name, first, second] = sort.split(":");
  if (name === "score") return spoken("pixel accuracy", percent(picture.scores[first]));
  if (name === "loss") return spoken("loss", fixed(picture.losses[first]));
  if (name === "quality") return spoken("label quality", fixed(picture.quality));
  if (name === "difference") {
    const [one, other] = [picture.scores[first], picture.scores[second]];
    const between = one === undefined || other === undefined ? null : other - one;
    return spoken("difference of pixel accuracy, in points", difference(between));
  }
  if (name === "changed") return picture.changed ? spoken("changed", picture.changed) : null;
  if (name === "size") return spoken("patches", picture.grid.join("×"));
  return null;
}

function spoken(name, text) {
  return { text, spoken: `${name} ${text}` };
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
