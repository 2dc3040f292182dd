/** Numbers for people. */

/**
 * @param {number} count
 * @returns {string} with thousands separated
 */
export function counted(count) {
  return count.toLocaleString("en");
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 * @returns {string} such as "1 picture", "2 pictures"
 */
export function plural(count, one, many = `${one}s`) {
  return `${counted(count)} ${count === 1 ? one : many}`;
}

/**
 * @param {number|null|undefined} share 0..1
 * @param {number} [digits]
 * @returns {string} in per cent, a dash where there is none
 */
export function percent(share, digits = 1) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;
}

/**
 * @param {number|null|undefined} value
 * @param {number} [digits]
 * @returns {string}
 */
export function fixed(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/**
 * @param {number|null|undefined} value a difference of two shares
 * @returns {string} in points, with its sign
 */
export function difference(value) {
  if (value === null || value === undefined) return "–";
  const points = (100 * value).toFixed(1);
  if (Number(points) === 0) return "0.0";
  return value > 0 ? `+${points}` : points.replace("-", "−");
}

/**
 * Round shares to tenths whose sum is that of the rounded whole, by largest remainders.
 * @param {number[]} percents
 * @returns {number[]}
 */
export function roundedTogether(percents) {
  const tenths = percents.map((value) => Math.floor(10 * value + 1e-9));
  const whole = Math.round(10 * percents.reduce((sum, value) => sum + value, 0));
  const rest = whole - tenths.reduce((sum, value) => sum + value, 0);
  const byRemainder = percents
    .map((value, index) => [10 * value - tenths[index], index])
    .sort((left, right) => right[0] - left[0] || left[1] - right[1]);
  for (const [, index] of byRemainder.slice(0, Math.max(rest, 0))) tenths[index] += 1;
  return tenths.map((value) => value / 10);
}
