/** Elements made of data. Text is only ever set as text: names and ids are what users were given. */

/**
 * Make an element. Attributes of null, undefined and false are left out; `on...` adds a listener;
 * `style` is a mapping of properties, custom ones too.
 * @param {string} tag
 * @param {Object<string, *>} [attributes]
 * @param {...(Node|string|number|Array|null|undefined|false)} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...present(children));
  return element;
}

/**
 * Put other children into an element.
 * @param {Element} element
 * @param {...(Node|string|number|Array|null|undefined|false)} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

/**
 * Put newly made children into an element; the control that had the focus keeps it, by its
 * `data-key`.
 * @param {Element} element
 * @param {...(Node|string|number|Array|null|undefined|false)} children
 */
export function refill(element, ...children) {
  const { activeElement } = document;
  const key = element.contains(activeElement) ? activeElement.dataset.key : undefined;
  fill(element, ...children);
  if (key === undefined) return;
  const same = [...element.querySelectorAll("[data-key]")].find((item) => item.dataset.key === key);
  same?.focus();
}

/**
 * Make a button.
 * @param {string} text
 * @param {function(MouseEvent): void} onclick
 * @param {Object<string, *>} [attributes]
 * @returns {HTMLElement}
 */
export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", "data-key": text, onclick, ...attributes }, text);
}

/**
 * Make a colour swatch.
 * @param {string} colour
 * @returns {HTMLElement}
 */
export function swatch(colour) {
  const style = { "background-color": colour };
  return h("span", { class: "swatch", style, "aria-hidden": "true" });
}

/**
 * Make a bar of a share between 0 and 1.
 * @param {number|null} share
 * @param {string} [colour]
 * @returns {HTMLElement}
 */
export function bar(share, colour = "") {
  const width = `${100 * Math.min(Math.max(share ?? 0, 0), 1)}%`;
  const style = colour ? { width, "background-color": colour } : { width };
  return h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style }));
}

/**
 * Make a switch: a button that is pressed or not.
 * @param {string} text
 * @param {boolean} pressed
 * @param {function(MouseEvent): void} onclick
 * @param {Object<string, *>} [attributes]
 * @returns {HTMLElement}
 */
export function toggle(text, pressed, onclick, attributes = {}) {
  return button(text, onclick, { class: "toggle", "aria-pressed": String(pressed), ...attributes });
}

/**
 * Make a choice among named values.
 * @param {string} label
 * @param {Array<[string, string]>} options values and texts
 * @param {string} value
 * @param {function(string): void} choose
 * @returns {HTMLElement}
 */
export function select(label, options, value, choose) {
  const list = options.map(([key, text]) =>
    h("option", { value: key, selected: key === value }, text),
  );
  const onchange = (event) => choose(event.target.value);
  const control = h("select", { onchange, "data-key": label }, list);
  return h("label", { class: "field" }, h("span", {}, label), control);
}

/**
 * Call a function when calls have stopped for a time.
 * @param {number} milliseconds
 * @param {function(...*): void} call
 * @returns {function(...*): void}
 */
export function settled(milliseconds, call) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
}

function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) {
    element.addEventListener(name.slice(2), value);
  } else if (name === "style") {
    for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
  } else {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

function present(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}
