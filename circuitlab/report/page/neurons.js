// Neurons: one at a time, its compartments side by side, and all of a population as a map.
"use strict";
page.parts.neurons = (data) => {
  const roles = ["soma", "basal", "apical", "control", "rate", "controller"];
  const MEAN = "mean";

  // What is chosen, after the selects were brought up to date.
  function chosen() {
    const runs = runOptions(data.runs).filter(({ value }) => Object.keys(data.runs[value].populations).length);
    const run = Number(page.options("neurons-run", runs));
    const populations = data.runs[run].populations;
    const name = page.options("neurons-population", Object.keys(populations).map((key) => ({ value: key, text: key })), true);
    const population = populations[name];
    const place = Number(page.options("neurons-recording", population.recordings.map((one, at) => ({ value: at, text: one.words }))) || 0);
    const recording = population.recordings[place];
    const ids = unique(Object.values(recording.variables).flatMap((variable) => variable.ids)).sort((a, b) => a - b);
    const called = (id) => (population.names[id] ? `${id}: ${population.names[id]}` : String(id));
    const neuron = Number(page.options("neurons-neuron", ids.map((id) => ({ value: id, text: called(id) })), true));
    const frame = page.slide("neurons-frame", recording.frames.values.length, (at) => moment(recording.frames, at));
    const changing = Array.isArray(recording.samples[0]);
    const samples = changing ? recording.samples[frame] : recording.samples;
    const told = (at) => `sample ${samples[at]}${recording.labels ? `, class ${recording.labels[at]}` : ""}`;
    const items = samples.map((_, at) => ({ value: at, text: told(at) })).filter(({ value }) => samples[value] >= 0);
    if (items.length > 1) items.unshift({ value: MEAN, text: "mean of all samples" });
    const select = page.byId("neurons-sample");
    const first = !select.options.length;
    page.options("neurons-sample", items, false);
    if (first && items.length > 1) select.value = String(items[1].value);
    const sample = select.value === "" ? 0 : select.value === MEAN ? MEAN : Number(select.value);
    return { run, name, population, recording, neuron, called, frame, samples, changing, sample, told };
  }

  // A neuron's value; null where it was not recorded.
  function value(variable, neuron, frame, sample, point, recording) {
    const unit = variable.ids.indexOf(neuron);
    if (unit < 0) return null;
    const one = (at) => (recording.points ? page.at(variable.data, frame, point, at, unit) : page.at(variable.data, frame, at, unit));
    const finite = (number) => (Number.isFinite(number) ? number : null);
    if (sample !== MEAN) return finite(one(sample));
    const count = recording.labels ? recording.labels.length : (Array.isArray(recording.samples[0]) ? recording.samples[frame] : recording.samples).length;
    let sum = 0;
    let many = 0;
    for (let at = 0; at < count; at++) {
      const number = one(at);
      if (Number.isFinite(number)) { sum += number; many += 1; }
    }
    return many ? sum / many : null;
  }

  const label = (recording) => {
    const names = Object.keys(recording.variables);
    const units = unique(Object.values(recording.variables).map((variable) => variable.units));
    return `${names.every((name) => name === "rate") ? "rate" : names.includes("rate") ? "potential, rate" : "potential"}<br>(${units.join(", ")})`;
  };
  const line = (name) => {
    const role = Math.max(0, roles.indexOf(name));
    return { color: page.colour(roles[role]), dash: plots.dashes[role], width: 2 };
  };
  const style = (name) => ({ line: line(name), marker: { color: line(name).color, symbol: plots.symbols[Math.max(0, roles.indexOf(name))], size: 8, line: { width: 1.5, color: line(name).color } } });
  const last = (recording) => (recording.points ? recording.points.values.length - 1 : 0);

  function bySamples(now) {
    const { recording, neuron, frame, samples } = now;
    const order = samples.map((_, at) => at).filter((at) => samples[at] >= 0);
    if (order.length < 2) return plots.draw("neurons-samples", [], {}, "");
    const labels = recording.labels;
    if (labels) order.sort((a, b) => labels[a] - labels[b] || a - b);
    const x = order.map((_, place) => place);
    const text = order.map(now.told);
    const found = [];
    const read = (name) => order.map((at) => value(recording.variables[name], neuron, frame, at, last(recording), recording));
    const held = Object.keys(recording.variables).filter((name) => recording.variables[name].ids.includes(neuron));
    if (held.includes("soma") && held.includes("basal")) {
      const soma = read("soma");
      const basal = read("basal");
      found.push({
        x: x.flatMap((place) => [place, place, null]), y: x.flatMap((place) => [basal[place], soma[place], null]), mode: "lines", type: "scatter",
        line: { color: page.quiet(), width: 1 }, hoverinfo: "skip", name: "soma minus basal", meta: "helper",
      });
    }
    for (const name of held) {
      found.push({ x, y: read(name), text, name, mode: "markers", type: "scatter", ...style(name), meta: "samples", hovertemplate: `%{text}<br>${name} %{y:.4g}<extra></extra>` });
    }
    const axis = plots.axis(labels ? "samples, sorted by class" : "sample", { showgrid: false, range: [-0.9, x.length - 0.1] });
    const form = plots.layout(axis, plots.axis(label(recording)), { meta: { across: "sample" } });
    if (labels) Object.assign(form, classes(order.map((at) => labels[at])));
    if (labels) Object.assign(form.xaxis, axis, form.ticks);
    else if (order.length <= 12) Object.assign(form.xaxis, { tickvals: x, ticktext: order.map((at) => String(samples[at])) });
    plots.title("neurons-samples", `Neuron ${now.called(neuron)} of ${now.name} over samples`);
    return plots.draw("neurons-samples", found, form, `At ${moment(recording.frames, frame)}, ${recording.words}.`.replace("At frame 0, ", "At the "));
  }

  // Where classes begin among sorted labels: lines between them and their names below.
  function classes(labels) {
    const kinds = unique(labels);
    if (kinds.length > 24) return {};
    const shapes = [];
    const tickvals = [];
    for (const kind of kinds) {
      const from = labels.indexOf(kind);
      const to = labels.lastIndexOf(kind);
      tickvals.push((from + to) / 2);
      if (from > 0) shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: from - 0.5, x1: from - 0.5, line: { color: page.line(), width: 1 } });
    }
    return { shapes, ticks: { tickvals, ticktext: kinds.map(String) } };
  }

  function overFrames(id, now, axis, read, heading, said) {
    const { recording, neuron } = now;
    const found = [];
    for (const name of Object.keys(recording.variables)) {
      if (!recording.variables[name].ids.includes(neuron)) continue;
      found.push({ x: axis.values, y: axis.values.map((_, at) => read(recording.variables[name], at)), name, mode: "lines", type: "scatter", ...style(name) });
    }
    plots.title(id, heading);
    const form = plots.layout(plots.axis(words[axis.name] || axis.name), plots.axis(label(recording)));
    plots.draw(id, found, form, said);
  }

  function overTraining(now) {
    const { recording, neuron, sample, changing } = now;
    const many = recording.frames.values.length > 1 && recording.kind !== "time";
    if (!many || (changing && sample !== MEAN)) {
      plots.draw("neurons-training", [], {}, "");
      return;
    }
    const who = sample === MEAN ? "mean of all samples" : now.told(sample);
    overFrames("neurons-training", now, recording.frames, (variable, at) => value(variable, neuron, at, sample, last(recording), recording),
      `Neuron ${now.called(neuron)} over training`, `${who}, ${recording.words}.`);
  }

  function overTime(now) {
    const { recording, neuron, sample, frame } = now;
    const who = sample === MEAN ? "mean of all samples" : now.told(sample);
    if (recording.kind === "time") {
      overFrames("neurons-time", now, recording.frames, (variable, at) => value(variable, neuron, at, sample, 0, recording), `Neuron ${now.called(neuron)} over time`, `${who}.`);
    } else if (recording.kind === "settling") {
      overFrames("neurons-time", now, recording.points, (variable, at) => value(variable, neuron, frame, sample, at, recording),
        `Neuron ${now.called(neuron)} as it settles`, `${who}, ${moment(recording.frames, frame)}.`);
    } else {
      plots.draw("neurons-time", [], {}, "");
    }
  }

  function map(now) {
    const { recording, frame, population, neuron } = now;
    const names = Object.keys(recording.variables);
    const name = page.options("neurons-variable", names.map((key) => ({ value: key, text: key })), true);
    const more = recording.maps[name];
    const variable = recording.variables[name];
    const overTime = recording.kind === "time";
    const ids = more ? more.ids : variable.ids;
    let at = frame;
    if (more && !overTime) at = more.frames.length > 1 && frame === recording.frames.values.length - 1 ? 1 : 0;
    const packed = more ? more.data : variable.data;
    const sample = more ? 0 : now.sample === MEAN ? 0 : now.sample;
    const samples = more ? more.samples : now.samples;
    const labels = more ? more.labels : recording.labels;
    const times = more ? more.frames : recording.frames.values;
    const read = (unit, column) => {
      if (overTime) return page.at(packed, column, sample, unit);
      return recording.points && !more ? page.at(packed, at, last(recording), column, unit) : page.at(packed, at, column, unit);
    };
    const columns = overTime ? times.map((_, place) => place) : samples.map((_, place) => place).filter((place) => samples[place] >= 0);
    if (labels && !overTime) columns.sort((a, b) => labels[a] - labels[b] || a - b);
    const sortable = Boolean(labels) && !overTime && unique(labels).length <= 24;
    const ways = [{ value: "index", text: "by index" }];
    if (sortable) ways.push({ value: "class", text: "by the class they prefer" });
    const way = page.options("neurons-order", ways);
    const rows = ids.map((_, place) => place);
    if (!rows.length || !columns.length) return plots.draw("neurons-map", [], {}, "");
    if (way === "class" && sortable) {
      const kinds = unique(columns.map((column) => labels[column]));
      const best = rows.map((row) => {
        const means = kinds.map((kind) => {
          const those = columns.filter((column) => labels[column] === kind);
          return those.reduce((sum, column) => sum + read(row, column), 0) / those.length;
        });
        const most = Math.max(...means);
        return [means.indexOf(most), -most];
      });
      rows.sort((a, b) => best[a][0] - best[b][0] || best[a][1] - best[b][1]);
    }
    const z = rows.map((row) => columns.map((column) => { const v = read(row, column); return Number.isFinite(v) ? v : null; }));
    const { low, high, ...colours } = plots.scale(z.flat().filter((v) => v !== null));
    const called = (id) => (population.names[id] ? `${id}: ${population.names[id]}` : String(id));
    const told = columns.map((column) => overTime ? `${page.number(times[column])} ms` : `sample ${samples[column]}${labels ? `, class ${labels[column]}` : ""}`);
    const named = rows.map((row) => called(ids[row]));
    const x = overTime ? plots.axis("time (ms)", { showgrid: false }) : plots.axis(labels ? "samples, sorted by class" : "sample", { showgrid: false });
    const y = plots.axis(`neuron of ${now.name}`, { autorange: "reversed", showgrid: false });
    const step = Math.max(1, Math.ceil(rows.length / 20));
    y.tickvals = rows.map((_, place) => place).filter((place) => place % step === 0);
    y.ticktext = y.tickvals.map((place) => (population.names[ids[rows[place]]] || String(ids[rows[place]])));
    const form = plots.layout(x, y, { showlegend: false });
    if (labels && !overTime) {
      const { shapes, ticks } = classes(columns.map((column) => labels[column]));
      form.shapes = shapes || [];
      Object.assign(form.xaxis, ticks || {});
    }
    const mark = rows.findIndex((row) => ids[row] === neuron);
    if (mark >= 0) {
      form.annotations = [{ xref: "paper", x: 1, xanchor: "left", y: mark, text: "◄", showarrow: false, font: { color: page.ink(), size: 12 }, hovertext: "the chosen neuron" }];
    }
    const trace = {
      type: "heatmap", z, x: overTime ? columns.map((column) => times[column]) : undefined, ...colours, meta: { rows: named, columns: told },
      customdata: rows.map((_, row) => columns.map((__, column) => `neuron ${named[row]}<br>${told[column]}`)),
      hovertemplate: "%{customdata}<br>%{z:.4g}<extra></extra>",
      colorbar: { title: { text: `${name} (${variable.units})`, side: "right" }, thickness: 12, outlinewidth: 0, x: 1.03, xanchor: "left" },
    };
    if (!overTime) delete trace.x;
    const when = overTime ? (more ? `sample ${samples[0]}` : now.told(sample)) : moment(recording.frames, more ? 0 : frame);
    const shown = overTime || !more ? when : `${recording.frames.name} ${page.number(more.frames[at])}`;
    const some = more && more.of > ids.length ? ` ${ids.length} of ${more.of.toLocaleString("en-US")} recorded neurons, evenly spaced.` : "";
    plots.title("neurons-map", `${name[0].toUpperCase() + name.slice(1)} of all shown neurons of ${now.name}`);
    const place = recording.frames.name === "frame" && recording.frames.values.length === 1 ? recording.words : shown;
    return plots.draw("neurons-map", [trace], form, `${place}: from ${page.number(low)} to ${page.number(high)}. The arrow at the right marks the chosen neuron.${some}`);
  }

  let before = "";
  function draw() {
    const now = chosen();
    const { population, recording, neuron, name } = now;
    const held = Object.keys(recording.variables).filter((key) => recording.variables[key].ids.includes(neuron));
    const missing = Object.keys(recording.variables).filter((key) => !held.includes(key));
    let facts = `${name}: ${population.about}. Neuron ${now.called(neuron)}: recorded ${held.join(", ")}`;
    if (missing.length) facts += `; not recorded of it: ${missing.join(", ")}`;
    const bias = population.bias && population.bias.units ? population.bias.units.indexOf(neuron) : -1;
    if (bias >= 0) {
      facts += `; bias ${page.number(population.bias.before[bias])}`;
      if (population.bias.after) facts += ` before and ${page.number(population.bias.after[bias])} after learning`;
    }
    page.byId("neurons-facts").textContent = `${facts}.`;
    page.byId("neurons-held").textContent = recording.held;
    bySamples(now);
    const both = recording.kind === "settling" && recording.frames.values.length > 1 && !(now.changing && now.sample !== MEAN);
    for (const id of ["neurons-time", "neurons-training"]) page.byId(id).closest("figure").classList.toggle("wide", !both);
    overTraining(now);
    overTime(now);
    map(now);
    const detail = { run: now.run, population: name, neuron };
    if (before !== JSON.stringify(detail)) document.dispatchEvent(new CustomEvent("neuron", { detail }));
    before = JSON.stringify(detail);
  }
  page.later("neurons", draw);
  page.on(["neurons-run", "neurons-population", "neurons-recording", "neurons-neuron", "neurons-sample", "neurons-frame", "neurons-variable", "neurons-order"], draw);
};
