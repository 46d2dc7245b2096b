// Plots: one look for all, heights that never change, numbers as a table, and the picture as a file.
"use strict";
const plots = (() => {
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const symbols = ["circle", "diamond-open", "triangle-up", "cross-thin", "square-open", "star-open"];
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: "reset" };
  const MOST_ROWS = 400;
  const MOST_CELLS = 60;

  function axis(title, more = {}) {
    return {
      title: { text: title, standoff: 8 },
      automargin: true, gridcolor: page.line(), zerolinecolor: page.line(), linecolor: page.quiet(), tickcolor: page.quiet(),
      showline: true, zeroline: false, ...more,
    };
  }

  function layout(x, y, more = {}) {
    const narrow = window.matchMedia("(max-width: 600px)").matches;
    return {
      font: { family: "system-ui, sans-serif", size: 13, color: page.ink() },
      paper_bgcolor: page.paper(), plot_bgcolor: page.paper(),
      margin: { l: 56, r: 14, t: 8, b: 44 },
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", font: { size: 12 }, itemwidth: 30 },
      hoverlabel: { font: { size: 12 } },
      dragmode: narrow ? false : "zoom",
      hovermode: "closest",
      xaxis: x, yaxis: y, ...more,
    };
  }

  // Draw into a place; `words` say what is seen, to those who do not see it and below the plot.
  function draw(id, traces, form, words = "") {
    const place = page.byId(id);
    page.hide(id, traces.length === 0);
    if (!traces.length) return;
    const title = place.closest("figure").querySelector("h3").textContent;
    if (traces[0].type !== "heatmap") {
      whole(form.xaxis, traces);
      flat(form.yaxis, traces);
    }
    place.setAttribute("aria-label", `${title}. ${words}`);
    page.byId(`${id}-words`).textContent = words;
    page.shown.set(id, { traces, form });
    Plotly.react(place, traces, form, config);
    // A figure that became wider or narrower since it was drawn.
    if (Math.abs(place._fullLayout.width - place.clientWidth) > 1) Plotly.relayout(place, { autosize: true });
    if (page.tables.has(id)) numbers(id, true);
  }

  // Whole numbers below an axis that counts.
  function whole(axis, traces) {
    if (!["epoch", "update", "frame", "iteration", "point", "row", "sample"].includes(axis.title.text) || axis.tickvals) return;
    const all = traces.flatMap((trace) => trace.x).filter(Number.isFinite);
    if (all.reduce((most, x) => Math.max(most, x), 0) - all.reduce((least, x) => Math.min(least, x), Infinity) <= 8) axis.dtick = 1;
  }
  // Values that differ by rounding alone stand in one line, not magnified.
  function flat(axis, traces) {
    if (axis.range || axis.type === "log") return;
    const all = traces.flatMap((trace) => trace.y).filter(Number.isFinite);
    const low = all.reduce((least, y) => Math.min(least, y), Infinity);
    const high = all.reduce((most, y) => Math.max(most, y), -Infinity);
    const size = Math.max(Math.abs(low), Math.abs(high));
    if (low <= high && high - low < 1e-6 * size) axis.range = [low - 0.1 * size, high + 0.1 * size];
  }

  function title(id, text) {
    const head = page.byId(id).closest("figure").querySelector("h3");
    if (head.textContent !== text) head.textContent = text;
  }

  function cell(tag, text) {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  }

  // The numbers behind a plot as a table below it.
  function numbers(id, open) {
    const box = page.byId(`${id}-table`);
    box.hidden = !open;
    box.replaceChildren();
    const known = page.shown.get(id);
    if (!open || !known) return;
    const table = document.createElement("table");
    const { head, rows, more } = known.traces[0].type === "heatmap" ? ofMap(known) : ofLines(known);
    const first = document.createElement("tr");
    for (const text of head) {
      const th = cell("th", text);
      th.scope = "col";
      first.append(th);
    }
    table.append(document.createElement("thead"), document.createElement("tbody"));
    table.tHead.append(first);
    for (const row of rows) {
      const tr = document.createElement("tr");
      row.forEach((text, place) => {
        const element = cell(place ? "td" : "th", text);
        if (!place) element.scope = "row";
        tr.append(element);
      });
      table.tBodies[0].append(tr);
    }
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", `Numbers of ${page.byId(id).closest("figure").querySelector("h3").textContent}`);
    scroll.append(table);
    box.append(scroll);
    if (more) box.append(cell("p", more));
  }
  const shownAs = (value) => (typeof value === "number" ? page.number(value, 6) : value === null || value === undefined ? "" : String(value));

  function ofLines({ traces, form }) {
    const lines = traces.filter((trace) => trace.name && trace.meta !== "helper" && trace.x);
    const places = new Map();
    lines.forEach((trace, column) => trace.x.forEach((x, row) => {
      const key = trace.text && trace.meta === "samples" ? trace.text[row] : x;
      if (!places.has(key)) places.set(key, Array(lines.length).fill(""));
      places.get(key)[column] = shownAs(trace.y[row]);
    }));
    const all = [...places.entries()];
    const across = form.meta && form.meta.across ? form.meta.across : form.xaxis.title.text;
    return {
      head: [across, ...lines.map((trace) => trace.name)],
      rows: all.slice(0, MOST_ROWS).map(([key, values]) => [shownAs(key), ...values]),
      more: all.length > MOST_ROWS ? `The first ${MOST_ROWS} of ${all.length.toLocaleString("en-US")} rows.` : "",
    };
  }
  function ofMap({ traces, form }) {
    const map = traces[0];
    const columns = Math.min(MOST_CELLS, map.z[0].length);
    const names = (map.meta && map.meta.columns) || map.x || map.z[0].map((_, place) => place);
    const rows = (map.meta && map.meta.rows) || map.y || map.z.map((_, place) => place);
    const cut = map.z[0].length > columns || map.z.length > MOST_ROWS;
    return {
      head: [form.yaxis.title.text || "row", ...names.slice(0, columns).map(String)],
      rows: map.z.slice(0, MOST_ROWS).map((line, row) => [String(rows[row]), ...line.slice(0, columns).map(shownAs)]),
      more: cut ? `The first ${Math.min(MOST_ROWS, map.z.length)} rows and ${columns} columns of ${map.z.length} and ${map.z[0].length}.` : "",
    };
  }

  function save(id) {
    const place = page.byId(id);
    const name = `${document.title} ${id}`.replace(/[^A-Za-z0-9]+/g, "_");
    Plotly.downloadImage(place, { format: "png", width: place.clientWidth, height: place.clientHeight, scale: 3, filename: name });
  }

  // A logarithmic axis with the numbers written out: every decade, or 1, 2 and 5 of it where there are few.
  function logarithmic(values) {
    const known = values.filter((value) => value > 0 && Number.isFinite(value));
    const low = Math.log10(Math.min(...known));
    const high = Math.log10(Math.max(...known));
    if (!(high - low > 0.5)) return {};
    const few = high - low < 2;
    const step = Math.max(1, Math.ceil((high - low) / 7));
    const tickvals = [];
    for (let power = Math.floor(low) - 1; power <= Math.ceil(high) + 1; power += few ? 1 : step) {
      for (const times of few ? [1, 2, 5] : [1]) tickvals.push(times * 10 ** power);
    }
    const margin = Math.max(0.05, 0.06 * (high - low));
    return { type: "log", tickvals, ticktext: tickvals.map((value) => page.number(value, 3)), range: [low - margin, high + margin] };
  }

  const diverging = () => (page.dark()
    ? [[0, "#7CC4F2"], [0.25, "#2F6D9C"], [0.5, "#1F2429"], [0.75, "#B5482F"], [1, "#FFA58A"]]
    : [[0, "#2166AC"], [0.25, "#84BCDB"], [0.5, "#F7F7F7"], [0.75, "#F4A582"], [1, "#B2182B"]]);

  // A scale of colours for values: from white both ways where there are both signs, else from dark to bright.
  function scale(values) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (!(low <= high)) { low = 0; high = 1; }
    if (low < 0) {
      const limit = Math.max(-low, high) || 1;
      return { colorscale: diverging(), zmin: -limit, zmax: limit, low, high };
    }
    return { colorscale: "Viridis", zmin: 0, zmax: high || 1, low, high };
  }

  return { dashes, symbols, axis, layout, draw, title, numbers, save, scale, logarithmic, diverging };
})();
