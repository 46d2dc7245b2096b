// The parts of the page of runs.
"use strict";
const words = {
  epoch: "epoch", update: "update", frame: "frame", ms: "time (ms)", iteration: "iteration", point: "point", row: "row",
};
const moment = (axis, place) =>
  axis.name === "ms" ? `${page.number(axis.values[place])} ms` : `${axis.name} ${page.number(axis.values[place])}`;
const unique = (items) => [...new Set(items)];
const runOptions = (runs) => runs.map((run, place) => ({ value: place, text: run.label }));

page.parts.learning = (data) => {
  const style = (condition) => ({ color: page.colours()[condition % 6], symbol: plots.symbols[condition % 6] });

  // One metric of all runs: thin lines for the seeds, a line and a band where there are several.
  function traces(metric, dash, named) {
    const found = [];
    data.conditions.forEach((condition, place) => {
      const curves = condition.runs.map((run) => data.runs[run][metric]).filter(Boolean);
      const { color, symbol } = style(place);
      if (!curves.length) return;
      const group = data.conditions.length > 1 || !named ? `${condition.name}${named ? `, ${named}` : ""}` : named;
      const first = { color, dash, width: 2.2 };
      const mode = (n) => (n === 1 ? "markers" : "lines");
      if (curves.length === 1) {
        const x = page.list(curves[0].at);
        found.push({
          x, y: page.list(curves[0].values), name: group, mode: mode(x.length), line: first, marker: { color, symbol, size: 8 }, type: "scatter",
        });
        return;
      }
      const sums = new Map();
      for (const curve of curves) {
        const y = page.list(curve.values);
        page.list(curve.at).forEach((x, row) => {
          if (Number.isFinite(y[row])) sums.set(x, [...(sums.get(x) || []), y[row]]);
        });
      }
      const xs = [...sums.keys()].sort((a, b) => a - b);
      const mean = xs.map((x) => sums.get(x).reduce((a, b) => a + b, 0) / sums.get(x).length);
      const spread = xs.map((x, row) => {
        const values = sums.get(x);
        const squares = values.reduce((a, b) => a + (b - mean[row]) ** 2, 0);
        return values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
      });
      found.push({
        x: [...xs, ...xs.slice().reverse()], y: [...xs.map((_, i) => mean[i] + spread[i]), ...xs.map((_, i) => mean[i] - spread[i]).reverse()],
        fill: "toself", fillcolor: `${color}2E`, line: { width: 0, color }, mode: "lines", hoverinfo: "skip", showlegend: false, meta: "helper", type: "scatter",
      });
      curves.forEach((curve, seed) => found.push({
        x: page.list(curve.at), y: page.list(curve.values), name: `${group}, run ${seed + 1}`, mode: "lines", type: "scatter",
        line: { color, dash, width: 0.8 }, opacity: 0.7, showlegend: false,
      }));
      found.push({
        x: xs, y: mean, name: `${group}, mean of ${curves.length}`, mode: mode(xs.length), type: "scatter", line: first,
        marker: { color, symbol, size: 8 },
      });
    });
    return found;
  }
  const across = (metrics) => {
    for (const run of data.runs) for (const metric of metrics) if (run[metric]) return run[metric].across;
    return "row";
  };
  const unitsOf = (metric) => (data.runs.find((run) => run[metric]) || {})[metric]?.units || "";
  const ends = (metric, share) => data.conditions.map((condition) => {
    const last = condition.runs.map((run) => data.runs[run][metric]).filter(Boolean).map((curve) => page.list(curve.values).at(-1));
    if (!last.length) return "";
    const mean = last.reduce((a, b) => a + b, 0) / last.length;
    return `${data.conditions.length > 1 ? `${condition.name} ` : ""}${share ? `${page.number(100 * mean, 3)}%` : page.number(mean)}`;
  }).filter(Boolean).join(", ");

  // Colours for conditions and dashes for splits, in place of an entry for each of their pairs.
  function legend(found, splits) {
    for (const trace of found) trace.showlegend = false;
    const entry = (name, line) => found.push({ x: [null], y: [null], name, mode: "lines", type: "scatter", line, meta: "helper" });
    data.conditions.forEach((condition, place) => {
      const many = condition.runs.length > 1 ? `, mean of ${condition.runs.length}` : "";
      entry(`${condition.name}${many}`, { color: style(place).color, width: 2.2 });
    });
    splits.forEach((split, place) => entry(split, { color: page.quiet(), dash: plots.dashes[place], width: 1.8 }));
  }

  function draw() {
    for (const { key, label, metrics, share } of data.figures) {
      const found = [];
      const present = Object.entries(metrics).filter(([, metric]) => data.names.includes(metric));
      present.forEach(([split, metric], place) => {
        const named = present.length > 1 ? { train: "training" }[split] || split : "";
        found.push(...traces(metric, plots.dashes[place], named));
      });
      if (present.length > 1 && data.conditions.length > 1) legend(found, present.map(([split]) => ({ train: "training" }[split] || split)));
      const curves = found.filter((trace) => trace.meta !== "helper");
      const all = curves.flatMap((trace) => trace.y).filter((y) => Number.isFinite(y));
      const highest = Math.max(...all);
      const y = plots.axis(label);
      if (share) y.tickformat = highest < 0.02 ? ".1%" : ".0%";
      if (key === "unconverged") y.range = [0, Math.max(0.01, 1.15 * highest)];
      if (key === "control_cost" && all.every((v) => v >= 0) && all.some((v) => v > 0)) {
        Object.assign(y, plots.logarithmic(all));
      }
      // Chance level, before learning, would squeeze everything that follows into one line.
      const learned = curves.flatMap((trace) => trace.y.filter((_, at) => trace.x[at] > 0)).filter((v) => Number.isFinite(v));
      const lowest = learned.reduce((least, v) => Math.min(least, v), 1);
      const cut = key === "accuracy" && learned.length > 0 && lowest > 0.5 && Math.min(...all) < lowest - 0.1;
      if (cut) y.range = [lowest - 0.1 * (1 - lowest), 1.005];
      if (key === "loss") y.rangemode = "tozero";
      const first = present[0][1];
      const split = present.length > 1 ? `${present[0][0]} ` : "";
      const below = cut ? " Before learning the curves lie below the plot." : "";
      const said = `Last, ${split}${key.replace("_", " ")}: ${ends(first, share)}.${below}`;
      plots.draw(`learning-${key}`, found, plots.layout(plots.axis(words[across([first])]), y), said);
    }
    const name = page.options("learning-metric", data.names.map((metric) => ({ value: metric, text: metric.replaceAll("_", " ") })), true);
    const told = name.replaceAll("_", " ");
    plots.title("learning-other", told[0].toUpperCase() + told.slice(1));
    plots.draw(
      "learning-other", traces(name, "solid", ""),
      plots.layout(plots.axis(words[across([name])]), plots.axis(unitsOf(name) === told ? told : `${told} (${unitsOf(name) || "no unit"})`)),
      `Last: ${ends(name, false)}.`,
    );
  }
  page.later("learning", draw);
  page.on(["learning-metric"], draw);
  if (data.names.includes("iterations")) {
    page.options("learning-metric", data.names.map((metric) => ({ value: metric, text: metric.replaceAll("_", " ") })), true);
    page.byId("learning-metric").value = "iterations";
  }
};

page.parts.weights = (data) => {
  const called = (names, id) => (names && names[id] ? `${id}: ${names[id]}` : String(id));

  function bars(id, field, projection, key, limit) {
    const senders = field ? page.list(field.from) : [];
    const values = field && field[key] ? page.list(field[key]) : [];
    const when = projection.after ? ` ${key} learning` : "";
    plots.title(id, `Weights onto the neuron${when}`);
    if (!values.length) return plots.draw(id, [], {}, "");
    const names = senders.map((sender) => called(projection.source_names, sender));
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const said = `${values.length.toLocaleString("en-US")} ${values.length === 1 ? "synapse" : "synapses"}, mean ${page.number(mean)}, from ${page.number(Math.min(...values))} to ${page.number(Math.max(...values))}.`;
    if (projection.image) {
      const [rows, columns] = projection.image;
      const z = Array.from({ length: rows }, () => Array(columns).fill(null));
      senders.forEach((sender, place) => { z[Math.floor(sender / columns) % rows][sender % columns] = values[place]; });
      plots.title(id, `Receptive field of the neuron${when}`);
      return plots.draw(id, [{
        type: "heatmap", z, colorscale: plots.diverging(), zmin: -limit, zmax: limit, xgap: 0.5, ygap: 0.5, hovertemplate: "row %{y}, column %{x}<br>%{z:.4g}<extra></extra>",
        colorbar: { title: { text: "weight", side: "right" }, thickness: 12, outlinewidth: 0 },
      }], plots.layout(
        plots.axis(`column of ${projection.source}`, { constrain: "domain", showgrid: false }),
        plots.axis(`row of ${projection.source}`, { autorange: "reversed", scaleanchor: "x", constrain: "domain", showgrid: false }), { showlegend: false },
      ), said);
    }
    // Few synapses stand side by side under their names, many at the places of their senders.
    const few = values.length <= 30;
    const x = few ? senders.map((_, place) => place) : senders;
    const across = plots.axis(`neuron of ${projection.source}`, few
      ? { range: [-0.6, Math.max(4, values.length) - 0.4], tickvals: x, ticktext: senders.map((sender) => projection.source_names[sender] || String(sender)) }
      : { range: [-0.6, projection.sources - 0.4], tickformat: "d" });
    const lowest = values.some((value) => value < 0) ? -1.05 * limit : 0;
    return plots.draw(id, [{
      type: "bar", x, y: values, name: "weight", text: names, textposition: "none", meta: "samples", marker: { color: values.map((v) => page.colour(v < 0 ? "basal" : "soma")), line: { width: 0 } },
      hovertemplate: "from %{text}<br>%{y:.4g}<extra></extra>",
    }], plots.layout(across, plots.axis("weight (dimensionless)", { range: [lowest, 1.05 * limit] }), { showlegend: false, bargap: 0.1 }), said);
  }

  function draw() {
    const run = data.runs[Number(page.options("weights-run", runOptions(data.runs)))];
    const names = Object.keys(run.projections);
    const name = page.options("weights-projection", names.map((key) => ({ value: key, text: `${key}: ${run.projections[key].source} to ${run.projections[key].target}` })), true);
    const facts = page.byId("weights-facts");
    const places = ["weights-histogram", "weights-moved", "weights-before", "weights-after"];
    const projection = run.projections[name];
    if (!projection || projection.left_out) {
      facts.textContent = projection ? `${name}: ${projection.left_out}.` : "No weights.";
      page.options("weights-neuron", []);
      for (const id of places) plots.draw(id, [], {}, "");
      return;
    }
    const kind = projection.kind === "electrical" ? "gap junctions" : `${projection.carries}-coded, onto the ${projection.site === "soma" ? "soma" : `${projection.site} site`}`;
    facts.textContent = `${projection.edges.toLocaleString("en-US")} connections from ${projection.source} to ${projection.target}, ${kind}; ${projection.plastic ? "plastic" : "fixed"}.`
      + (projection.held ? ` Single neurons: ${projection.held}, evenly spaced.` : "");
    const middle = projection.bins.slice(1).map((edge, place) => (edge + projection.bins[place]) / 2);
    const shapes = [];
    for (const [key, role, dash] of [["before", "basal", "dash"], ["after", "soma", "solid"]]) {
      if (projection[key]) {
        shapes.push({
          x: middle, y: projection[key], name: projection.after ? `${key} learning` : "weights", type: "scatter", mode: "lines", line: { shape: "hvh", color: page.colour(role), dash, width: 2 },
          fill: key === "after" ? "tozeroy" : "none", fillcolor: `${page.colour(role)}22`,
        });
      }
    }
    const told = (key) => (projection[key] ? `${projection.after ? `${key} learning ` : ""}mean ${page.number(projection[`${key}_mean`])}, standard deviation ${page.number(projection[`${key}_std`])}` : "");
    plots.draw("weights-histogram", shapes, plots.layout(plots.axis("weight (dimensionless)"), plots.axis("connections", { rangemode: "tozero" })),
      `${[told("before"), told("after")].filter(Boolean).join("; ")}.`);

    const ids = Object.keys(projection.fields).map(Number).sort((a, b) => a - b);
    const neuron = page.options("weights-neuron", ids.map((id) => ({ value: id, text: called(projection.target_names, id) })), true);
    const field = projection.fields[neuron];
    const both = field ? [...page.list(field.before), ...(field.after ? page.list(field.after) : [])] : [];
    const limit = both.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0) || 1;
    bars("weights-before", field, projection, "before", limit);
    bars("weights-after", field, projection, "after", limit);
    const ways = field && field.ways && projection.steps.length > 1 ? page.array(field.ways) : null;
    const moved = ways ? field.moved.map((sender, row) => ({
      x: projection.steps, y: projection.steps.map((_, column) => page.at(ways, row, column)), name: `from ${called(projection.source_names, sender)}`, type: "scatter",
      mode: "lines", line: { color: page.colours()[row % 6], dash: plots.dashes[Math.floor(row / 6) * 2 + (row % 2)], width: 1.8 },
    })) : [];
    plots.draw("weights-moved", moved, plots.layout(plots.axis("update"), plots.axis("weight (dimensionless)")),
      `The synapses onto neuron ${called(projection.target_names, neuron)} whose weights differ most between beginning and end.`);
  }
  page.later("weights", draw);
  page.on(["weights-run", "weights-projection", "weights-neuron"], draw);
  // The neuron chosen above is shown here too, where it has synapses in the chosen projection.
  document.addEventListener("neuron", ({ detail }) => {
    const { run, population, neuron } = detail;
    if (data.runs[run] && page.byId("weights-run").options.length) page.byId("weights-run").value = String(run);
    const projections = data.runs[run] ? data.runs[run].projections : {};
    const now = projections[page.byId("weights-projection").value];
    const onto = Object.keys(projections).find((key) => projections[key].target === population && projections[key].fields);
    if (onto && !(now && now.target === population)) {
      draw();
      page.byId("weights-projection").value = onto;
    }
    draw();
    const select = page.byId("weights-neuron");
    if ([...select.options].some((option) => option.value === String(neuron))) {
      select.value = String(neuron);
      draw();
    }
  });
};

page.parts.convergence = (data) => {
  function draw() {
    const run = data.runs[Number(page.options("convergence-run", runOptions(data.runs)))];
    const facts = page.byId("convergence-facts");
    const entry = run.entries[Number(page.options("convergence-entry", run.entries.map((one, place) => ({ value: place, text: one.words }))) || 0)];
    if (!entry) {
      facts.textContent = run.note || "Nothing is known of single samples of this run.";
      page.options("convergence-frame", []);
      plots.draw("convergence-residual", [], {}, "");
      plots.draw("convergence-iterations", [], {}, "");
      return;
    }
    const frames = entry.frames.values.map((_, place) => ({ value: place, text: moment(entry.frames, place) }));
    const select = page.byId("convergence-frame");
    const fresh = select.options.length !== frames.length;
    page.options("convergence-frame", frames);
    if (fresh) select.value = String(frames.length - 1);
    const frame = Number(select.value || 0);
    const samples = Array.isArray(entry.samples[0]) ? entry.samples[frame] : entry.samples;
    const real = samples.map((id, place) => [id, place]).filter(([id]) => id >= 0);
    const settled = entry.converged ? real.map(([, place]) => page.at(entry.converged, frame, place) > 0) : null;
    const never = settled ? real.filter((_, row) => !settled[row]).map(([id]) => id) : [];
    let said = settled
      ? never.length
        ? `${never.length} of ${real.length.toLocaleString("en-US")} samples did not settle: ${never.slice(0, entry.named).join(", ")}${never.length > entry.named ? ", ..." : ""}.`
        : `All ${real.length.toLocaleString("en-US")} samples settled.`
      : "";
    if (run.note) said = `${said} ${run.note}`;
    facts.textContent = `${said} ${entry.held}`.trim();
    for (const [variable, label, log] of [["residual", "relative residual", true], ["iterations", "iterations", false]]) {
      const found = [];
      if (entry[variable]) {
        for (const good of settled ? [true, false] : [true]) {
          const rows = real.filter((_, row) => !settled || settled[row] === good);
          if (!rows.length) continue;
          found.push({
            x: rows.map(([id]) => id), y: rows.map(([, place]) => page.at(entry[variable], frame, place)), type: "scatter", mode: "markers",
            name: settled ? (good ? "settled" : "did not settle") : label,
            marker: { color: page.colour(good ? "soma" : "basal"), symbol: good ? "circle" : "x", size: good ? 6 : 9 },
          });
        }
      }
      const all = found.flatMap((trace) => trace.y).filter(Number.isFinite);
      const y = plots.axis(label, log && all.some((value) => value > 0) ? plots.logarithmic(all) : { rangemode: "tozero" });
      const form = plots.layout(plots.axis("sample"), y, { meta: { across: "sample" } });
      if (variable === "residual" && entry.tolerance > 0) {
        form.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: entry.tolerance, y1: entry.tolerance, line: { color: page.quiet(), dash: "dash", width: 1.5 } }];
      }
      const largest = all.length ? `Largest ${page.number(Math.max(...all))}` : "";
      plots.draw(`convergence-${variable}`, found, form, variable === "residual" && entry.tolerance > 0 ? `${largest}; dashed: the tolerance, ${page.number(entry.tolerance)}.` : `${largest}.`);
    }
  }
  page.later("convergence", draw);
  page.on(["convergence-run", "convergence-entry", "convergence-frame"], draw);
};

page.parts.diagnosis = (data) => {
  function draw() {
    const run = data.runs[Number(page.options("diagnosis-run", runOptions(data.runs)))];
    const measured = run.measures.map((one, place) => ({ value: place, text: one.name })).filter(({ value }) => run.measures[value].values);
    const measure = run.measures[Number(page.options("diagnosis-measure", measured, true))];
    const facts = page.byId("diagnosis-facts");
    if (!measure || !measure.values) return plots.draw("diagnosis-values", [], {}, "");
    facts.textContent = `${measure.about}. Mean ${measure.value}${measure.asks ? `; the theory asks: ${measure.asks}` : ""}${measure.verdict ? `; ${measure.verdict}` : ""}.`;
    const y = page.list(measure.values);
    const x = run.samples.length === y.length ? run.samples : y.map((_, place) => place);
    plots.title("diagnosis-values", measure.name[0].toUpperCase() + measure.name.slice(1));
    const form = plots.layout(plots.axis("training sample"), plots.axis(`${measure.name} (${measure.units})`), { showlegend: false });
    if (Number.isFinite(measure.mean)) {
      form.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: measure.mean, y1: measure.mean, line: { color: page.quiet(), dash: "dash", width: 1.5 } }];
    }
    return plots.draw("diagnosis-values", [{ x, y, name: measure.name, type: "scatter", mode: "markers", marker: { color: page.colour("soma"), size: 6 } }], form,
      `One dot a sample; dashed: the mean, ${measure.value}.`);
  }
  page.later("diagnosis", draw);
  page.on(["diagnosis-run", "diagnosis-measure"], draw);
};

page.parts.spectrum = (data) => {
  function draw() {
    const run = data.runs[Number(page.options("spectrum-run", runOptions(data.runs)))];
    const found = [];
    const circle = Array.from({ length: 181 }, (_, place) => (2 * Math.PI * place) / 180);
    if (run.before) {
      found.push({ x: circle.map(Math.cos), y: circle.map(Math.sin), mode: "lines", type: "scatter", name: "unit circle", meta: "helper", hoverinfo: "skip", line: { color: page.quiet(), dash: "dot", width: 1.2 } });
    }
    for (const [key, role, symbol] of [["before", "basal", "circle-open"], ["after", "soma", "circle"]]) {
      if (run[key]) {
        found.push({
          x: page.list(run[key].real), y: page.list(run[key].imaginary), name: `${key} learning`, mode: "markers", type: "scatter",
          marker: { color: page.colour(role), symbol, size: key === "before" ? 7 : 4.5, line: { width: 1.2, color: page.colour(role) } },
          hovertemplate: "%{x:.4g} + %{y:.4g}i<extra></extra>",
        });
      }
    }
    const radii = ["before", "after"].filter((key) => run[key]).map((key) => `${page.number(run[key].radius)} ${key}`);
    plots.draw("spectrum-plane", found, plots.layout(
      plots.axis("real part", { constrain: "domain" }), plots.axis("imaginary part", { scaleanchor: "x", constrain: "domain" }),
    ), `Spectral radius ${radii.join(", ")}. ${run.note || ""}`);
  }
  page.later("spectrum", draw);
  page.on(["spectrum-run"], draw);
};

page.parts.recorded = (data) => {
  function draw() {
    const runs = runOptions(data.runs).filter(({ value }) => data.runs[value].probes.length);
    const run = data.runs[Number(page.options("recorded-run", runs))];
    const probe = run.probes[Number(page.options("recorded-probe", run.probes.map((one, place) => ({ value: place, text: one.name })), true))];
    const row = Number(page.options("recorded-row", probe.rows.map((text, place) => ({ value: place, text })), true));
    const column = Number(page.options("recorded-column", probe.columns.map((text, place) => ({ value: place, text }))) || 0);
    const x = page.list(probe.at);
    const y = x.map((_, frame) => (probe.columns.length ? page.at(probe.data, frame, row, column) : page.at(probe.data, frame, row)));
    const name = `${probe.rows[row]}${probe.columns.length ? `, ${probe.columns[column]}` : ""}`;
    plots.draw("recorded-values", [{ x, y, name, type: "scatter", mode: x.length > 1 ? "lines" : "markers", line: { color: page.colour("soma"), width: 2 } }],
      plots.layout(plots.axis(words[probe.across] || probe.across), plots.axis(`${probe.variable} (${probe.units})`), { showlegend: false }),
      `${probe.variable} of ${name}: from ${page.number(y[0])} to ${page.number(y.at(-1))}.`);
    page.byId("recorded-held").textContent = probe.held;
  }
  page.later("recorded", draw);
  page.on(["recorded-run", "recorded-probe", "recorded-row", "recorded-column"], draw);
};
