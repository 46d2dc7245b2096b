// What every page needs: its data, the colours of its ground, and the registry of parts, controls and plots.
"use strict";
const page = (() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const arrays = { f4: Float32Array, i4: Int32Array, u1: Uint8Array };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const redraw = new Map();
  const shown = new Map();
  const parts = {};
  const tables = new Set();
  let printing = false;

  const byId = (id) => document.getElementById(id);
  const ground = () => (dark.matches && !printing ? 1 : 0);
  const colour = (name) => data.palette[name][ground()];
  const colours = () => Object.keys(data.palette).map(colour);
  const ink = () => data.inks.ink[ground()];
  const quiet = () => data.inks.quiet[ground()];
  const paper = () => data.grounds[ground()];
  const line = () => (ground() ? "#363C44" : "#D5DAE0");

  // A packed array as {shape, at(i, j, ...), values}; unpacked once.
  function array(packed) {
    if (!packed.values) {
      const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
      packed.values = new arrays[packed.type](bytes.buffer);
      packed.data = null;
    }
    return packed;
  }
  function at(packed, ...places) {
    const { shape, values } = array(packed);
    let flat = 0;
    for (let axis = 0; axis < shape.length; axis++) flat = flat * shape[axis] + places[axis];
    return values[flat];
  }
  const list = (packed) => Array.from(array(packed).values);

  function number(value, digits = 4) {
    if (value === null || value === undefined) return "none";
    if (!Number.isFinite(value)) return "not a number";
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en-US");
    return String(Number(value.toPrecision(digits)));
  }

  function hide(id, hidden) {
    const element = byId(id);
    const box = element.closest(".control") || element.closest(".figure") || element;
    box.hidden = hidden;
  }

  // Fill a select with {value, text}; keep what was chosen where it is still there.
  function options(id, items, alwaysShown = false) {
    const select = byId(id);
    const before = select.value;
    select.replaceChildren(...items.map(({ value, text }) => new Option(text, String(value))));
    if (items.some(({ value }) => String(value) === before)) select.value = before;
    hide(id, items.length < (alwaysShown ? 1 : 2));
    return select.value;
  }
  function slide(id, count, words) {
    const input = byId(id);
    if (Number(input.max) !== count - 1 || input.dataset.set !== "yes") {
      input.max = String(Math.max(0, count - 1));
      input.value = input.max;
      input.dataset.set = "yes";
    }
    byId(`${id}-words`).textContent = words(Number(input.value));
    input.setAttribute("aria-valuetext", words(Number(input.value)));
    hide(id, count < 2);
    return Number(input.value);
  }
  function on(ids, then) {
    for (const id of ids) byId(id).addEventListener(byId(id).type === "range" ? "input" : "change", then);
  }

  // Register the drawing of a part, and draw it when its turn comes.
  const queue = [];
  function later(name, draw) {
    redraw.set(name, draw);
    queue.push(draw);
  }
  function run() {
    const next = queue.shift();
    if (!next) {
      document.body.dataset.drawn = "yes";
      return;
    }
    next();
    setTimeout(run, 0);
  }

  function begin() {
    for (const [name, part] of Object.entries(parts)) {
      if (data.parts[name]) part(data.parts[name]);
    }
    const all = () => { for (const draw of redraw.values()) draw(); };
    dark.addEventListener("change", all);
    window.addEventListener("beforeprint", () => { printing = true; all(); });
    window.addEventListener("afterprint", () => { printing = false; all(); });
    for (const button of document.querySelectorAll("[data-numbers]")) {
      button.addEventListener("click", () => {
        const open = button.getAttribute("aria-expanded") !== "true";
        button.setAttribute("aria-expanded", String(open));
        if (open) tables.add(button.dataset.numbers); else tables.delete(button.dataset.numbers);
        plots.numbers(button.dataset.numbers, open);
      });
    }
    for (const button of document.querySelectorAll("[data-picture]")) {
      button.addEventListener("click", () => plots.save(button.dataset.picture));
    }
    run();
  }

  return {
    data, parts, byId, array, at, list, number, options, slide, on, hide, later, begin, shown, tables,
    dark: () => ground() === 1, colour, colours, ink, quiet, paper, line,
  };
})();
