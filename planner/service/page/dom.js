// Elements of the page. Text reaches them through textContent alone.

export const $ = id => document.getElementById(id);

/** Only where it differs, so that a screen reader says what is new and a selection stays. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

/** Tell that an element was chosen that stands for a decision; page.js, which knows the panel, opens it. */
export const choose = (id, element) => element.dispatchEvent(new CustomEvent("decision", {detail: id, bubbles: true}));
