/** Where the rows of a long grid are; plain numbers. */

const GAP = 12; // pixels between tiles
const CAPTION = 44; // pixels below a tile's picture
const AROUND = 2; // rows beyond each edge that exist too
const TALLEST = 16e6; // pixels that every browser lets an element have

/**
 * @typedef {Object} Shape
 * @property {number} columns
 * @property {number} height of a row in pixels, with the gap
 * @property {number} pictureHeight
 */

/**
 * Fit tiles into a width.
 * @param {number} width of the grid in pixels
 * @param {number} wanted width of a tile
 * @param {number} ratio width of a tile's picture by its height
 * @returns {Shape}
 */
export function gridShape(width, wanted, ratio) {
  const columns = Math.max(1, Math.round((width + GAP) / (Math.min(wanted, width / 2) + GAP)));
  const tile = (width - GAP * (columns - 1)) / columns;
  const pictureHeight = Math.floor(tile / ratio);
  return { columns, pictureHeight, height: pictureHeight + CAPTION + GAP };
}

/**
 * The rows of a list that can be scrolled to.
 * @param {number} total pictures
 * @param {Shape} shape
 * @returns {number}
 */
export function rowCount(total, shape) {
  return Math.min(Math.ceil(total / shape.columns), Math.floor(TALLEST / shape.height));
}

/**
 * The rows that are in sight, and a few around them.
 * @param {{scrollTop: number, clientHeight: number}} view
 * @param {number} height of a row
 * @param {number} whole height of all rows
 * @returns {{first: number, end: number}}
 */
export function visibleRows(view, height, whole) {
  const rows = Math.ceil(whole / height);
  const first = Math.max(0, Math.floor(view.scrollTop / height) - AROUND);
  const last = Math.ceil((view.scrollTop + view.clientHeight) / height) + AROUND;
  return { first, end: Math.min(rows, last) };
}

/**
 * Where a key leads in a grid.
 * @param {string} key
 * @param {number} index
 * @param {number} total
 * @param {number} columns
 * @param {number} page rows in sight
 * @returns {number|null} null when the key leads nowhere
 */
export function movedIndex(key, index, total, columns, page) {
  const steps = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -columns,
    ArrowDown: columns,
    PageUp: -columns * page,
    PageDown: columns * page,
  };
  if (total === 0) return null;
  if (key === "Home") return 0;
  if (key === "End") return total - 1;
  if (!(key in steps)) return null;
  const next = index + steps[key];
  const isVertical = Math.abs(steps[key]) > 1 || key === "ArrowUp" || key === "ArrowDown";
  if (next < 0) return isVertical && key !== "PageUp" ? index : 0;
  if (next >= total) return isVertical && key !== "PageDown" ? index : total - 1;
  return next;
}
