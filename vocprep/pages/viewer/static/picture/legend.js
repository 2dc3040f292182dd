/** The classes of a picture with their shares in truth and predictions, which sum to 100. */

import { bar, h, swatch } from "../dom.js";
import { roundedTogether } from "../numbers.js";

const MOST = 12;

/**
 * @typedef {Object} LegendRow
 * @property {number|null} id null of void and of those that are summed up
 * @property {string} name
 * @property {string} colour
 * @property {number[]} percents one per column
 * @property {string[]} texts of the percents, a dash where the class does not occur
 */

/**
 * Rows of a legend: the largest classes first, then the others together, then void.
 * @param {Array<Array<{id: number, pixels: number, percent: number}>>} columns classes of the truth and of each run
 * @param {number[]} voids percentages of void, of the truth and of each run
 * @param {Map<number, {name: string, colour: string}>} classes by id
 * @param {number} [most]
 * @returns {LegendRow[]}
 */
export function legendRows(columns, voids, classes, most = MOST) {
  const shares = columns.map((column) => new Map(column.map((item) => [item.id, item.percent])));
  const ids = [...new Set(columns.flat().map((item) => item.id))];
  const pixels = new Map(ids.map((id) => [id, 0]));
  for (const item of columns.flat()) pixels.set(item.id, pixels.get(item.id) + item.pixels);
  ids.sort((one, other) => pixels.get(other) - pixels.get(one) || one - other);
  // A row for a single class takes no more room than a row that says "1 other class".
  const shown = ids.length > most + 1 ? ids.slice(0, most) : ids;
  const rest = ids.slice(shown.length);
  const rows = shown.map((id) => ({
    id,
    name: classes.get(id)?.name ?? `class ${id}`,
    colour: classes.get(id)?.colour ?? "transparent",
    percents: shares.map((share) => share.get(id) ?? 0),
  }));
  if (rest.length > 0) {
    const percents = shares.map((share) => rest.reduce((sum, id) => sum + (share.get(id) ?? 0), 0));
    rows.push({ id: null, name: `${rest.length} other classes`, colour: "transparent", percents });
  }
  if (voids.some((percent) => percent > 0)) {
    rows.push({ id: null, name: "void", colour: "", percents: voids });
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
    row.texts.map((text) => h("td", { class: "number" }, text)),
    hasBar ? h("td", { class: "wide" }, bar(row.percents[0] / 100, row.colour || "#999")) : null,
  );
}

function withRoundedColumns(rows, count) {
  const rounded = [];
  for (let column = 0; column < count; column += 1) {
    rounded.push(roundedTogether(rows.map((row) => row.percents[column])));
  }
  return rows.map((row, index) => {
    const percents = rounded.map((column) => column[index]);
    const texts = percents.map((value, column) => shareText(value, row.percents[column] > 0));
    return { ...row, percents, texts };
  });
}

function shareText(percent, occurs) {
  if (percent > 0) return percent.toFixed(1);
  return occurs ? "<0.1" : "-";
}
