/** The classes of a picture with their shares in truth and predictions, which sum to 100. */

import { bar, h, swatch } from "../dom.js";
import { roundedTogether } from "../numbers.js";

const MOST = 12;

/**
 * @typedef {Object} LegendRow
 * @property {number|null} id null of void and of those that are summed up
 * @property {string} name
 * @property {string} colour
 * @property {Array<number|null>} percents one per column
 */

/**
 * Rows of a legend: the largest classes first, then the others together, then void.
 * @param {Array<Array<{id: number, percent: number}>>} columns classes of the truth and of each run
 * @param {number} voidPercent of the truth
 * @param {Map<number, {name: string, colour: string}>} classes by id
 * @param {number} [most]
 * @returns {LegendRow[]}
 */
export function legendRows(columns, voidPercent, classes, most = MOST) {
  const shares = columns.map((column) => new Map(column.map((item) => [item.id, item.percent])));
  const ids = [...new Set(columns.flat().map((item) => item.id))];
  const largest = (id) => Math.max(...shares.map((share) => share.get(id) ?? 0));
  ids.sort((one, other) => largest(other) - largest(one) || one - other);
  const shown = ids.length > most ? ids.slice(0, most - 1) : ids;
  const rest = ids.slice(shown.length);
  const rows = shown.map((id) => ({
    id,
    name: classes.get(id)?.name ?? `class ${id}`,
    colour: classes.get(id)?.colour ?? "transparent",
    percents: shares.map((share) => share.get(id) ?? 0),
  }));
  if (rest.length > 0) {
    const percents = shares.map((share) => rest.reduce((sum, id) => sum + (share.get(id) ?? 0), 0));
    rows.push({ id: null, name: `${rest.length} others`, colour: "transparent", percents });
  }
  if (voidPercent > 0) {
    const percents = columns.map((_, index) => (index === 0 ? voidPercent : 0));
    rows.push({ id: null, name: "void", colour: "", percents });
  }
  return withRoundedColumns(rows, columns.length);
}

/**
 * Draw a legend.
 * @param {LegendRow[]} rows
 * @param {string[]} titles of the columns
 * @param {{href: function(number): string, mark: function(number|null): void}} actions
 * @returns {HTMLElement}
 */
export function legendTable(rows, titles, actions) {
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "Class"),
    titles.map((title) => h("th", { scope: "col", class: "number" }, `${title} %`)),
    titles.length === 1 ? h("th", { class: "wide" }, h("span", { class: "unseen" }, "bar")) : null,
  );
  const body = rows.map((row) => legendRow(row, titles.length === 1, actions));
  return h(
    "table",
    { class: "legend" },
    h("caption", { class: "unseen" }, "Classes of the picture"),
    h("thead", {}, head),
    h("tbody", {}, body),
  );
}

function legendRow(row, hasBar, actions) {
  const isClass = row.id !== null;
  const leave = () => actions.mark(null);
  const enter = () => actions.mark(row.id);
  const name = isClass
    ? h("a", { href: actions.href(row.id), title: `Pictures with ${row.name}` }, row.name)
    : row.name;
  const mark = row.colour === "" ? h("span", { class: "swatch is-void" }) : swatch(row.colour);
  return h(
    "tr",
    isClass
      ? { onmouseenter: enter, onmouseleave: leave, onfocusin: enter, onfocusout: leave }
      : {},
    h("th", { scope: "row" }, mark, name),
    row.percents.map((value) => h("td", { class: "number" }, value === 0 ? "–" : value.toFixed(1))),
    hasBar ? h("td", { class: "wide" }, bar(row.percents[0] / 100, row.colour || "#999")) : null,
  );
}

function withRoundedColumns(rows, count) {
  const rounded = [];
  for (let column = 0; column < count; column += 1) {
    rounded.push(roundedTogether(rows.map((row) => row.percents[column])));
  }
  return rows.map((row, index) => ({ ...row, percents: rounded.map((column) => column[index]) }));
}
