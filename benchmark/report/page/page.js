"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const LINES = 8, FROM = 3, TO = 12, POINTS = 181;
  const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [], [7, 4], [2, 3], [10, 3, 2, 3]];
  const state = {group: 0, hardware: "", mui: Math.log10(data.mui), tau: data.tau, floor: 0, off: new Set(), open: "", kind: "share"};
  const slots = new Map();  // a line keeps its colour while it is drawn
  let chart = null, traces = [];

  // --- words ----------------------------------------------------------------------------------------------------
  const el = (tag, props = {}, ...inside) => {
    const made = Object.assign(document.createElement(tag), props);
    made.append(...inside);
    return made;
  };
  const count = (value) => {
    if (value === Infinity) return "any number";
    for (const [size, unit] of [[1e12, " trillion"], [1e9, " billion"], [1e6, " million"], [1e3, " thousand"]])
      if (value >= size) return trim(value / size) + unit;
    return String(Math.round(value));
  };
  const trim = (value) => Number(value.toPrecision(3)).toString();
  const number = (value, digits = 4) => {
    if (value === null || !Number.isFinite(value)) return "unknown";
    const size = Math.abs(value);
    return size !== 0 && (size >= 1e6 || size < 1e-3) ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  };
  const energy = (wh, digits = 4) => {  // an inference in mJ or uJ, a life in W.h or kWh
    if (wh === null || !Number.isFinite(wh)) return "unknown";
    const joules = wh * 3600;
    if (wh >= 1000) return number(wh / 1000, digits) + " kWh";
    if (wh >= 0.01) return number(wh, digits) + " W.h";
    if (joules >= 1) return number(joules, digits) + " J";
    return joules >= 1e-3 ? number(joules * 1e3, digits) + " mJ" : number(joules * 1e6, digits) + " \u00b5J";
  };
  const percent = (pair) => pair[0] && pair[1] !== null && pair[1] > 0 ? ` \u00b1${trim(100 * pair[1] / pair[0])} %` : "";
  const name = (row) => `${row.method} on ${row.network}` + (row.settings ? ` (${row.settings})` : "");
  const about = (row) => row.estimate ? "~" : "";

  // --- what is asked ----------------------------------------------------------------------------------------------
  const group = () => data.groups[state.group];
  let reigned = {key: "", found: []};  // it does not depend on the MUI, and costs the cube of the rows
  const reigns = (rows) => {
    const key = [state.tau, ...rows.map((row) => row.id).sort()].join("\n");
    if (reigned.key !== key) reigned = {key, found: figures.reigns(rows, state.tau)};
    return reigned.found;
  };
  const rowsShown = () => group().rows.filter((row) =>
    figures.known(row) && !state.off.has(row.family) && row.acc[0] >= state.floor);
  const ordered = () => {
    const mui = 10 ** state.mui;
    return rowsShown().map((row) => ({row, g: figures.g(row, mui, state.tau)})).sort((a, b) => b.g - a.g).map((each) => each.row);
  };
  const read = () => {
    const words = new URLSearchParams(location.hash.slice(1));
    const within = (key, low, high, fallback) => {
      const value = Number(words.get(key));
      return words.has(key) && value >= low && value <= high ? value : fallback;
    };
    state.group = Math.floor(within("g", 0, data.groups.length - 1, 0));
    state.mui = within("m", FROM, TO, state.mui);
    state.tau = within("t", 0.01, 100, state.tau);
    state.floor = within("a", 0, 100, 0);
    state.off = new Set((words.get("without") || "").split(",").filter(Boolean));
    state.open = words.get("row") || "";
    state.kind = words.get("c") === "g" ? "g" : "share";
    state.hardware = data.groups.some((each) => each.hardware === words.get("hw")) ? words.get("hw") : "";
  };
  const write = () => {
    const words = new URLSearchParams({g: state.group, m: Number(state.mui.toFixed(2)), t: Number(state.tau.toFixed(4))});
    if (state.floor) words.set("a", state.floor);
    if (state.off.size) words.set("without", [...state.off].join(","));
    if (state.open) words.set("row", state.open);
    if (state.kind === "g") words.set("c", "g");
    if (state.hardware) words.set("hw", state.hardware);
    history.replaceState(null, "", "#" + words);
  };

  // --- the controls -------------------------------------------------------------------------------------------------
  const choices = () => {
    const kinds = [...new Set(data.groups.map((each) => each.hardware))];
    byId("hardware").replaceChildren(el("option", {value: "", textContent: "any"}),
      ...kinds.map((kind) => el("option", {value: kind, textContent: kind})));
    byId("hardware").value = state.hardware;
    byId("group").replaceChildren(...data.groups.map((each, place) => ({each, place}))
      .filter(({each}) => !state.hardware || each.hardware === state.hardware)
      .map(({each, place}) => el("option", {value: place, textContent: `${each.label}: ${each.rows.length} rows`})));
    byId("group").value = state.group;
    const families = [...new Set(group().rows.map((row) => row.family))].sort();
    byId("families").replaceChildren(...families.map((family) => {
      const box = el("input", {type: "checkbox", checked: !state.off.has(family), value: family});
      box.addEventListener("change", () => { state.off[box.checked ? "delete" : "add"](family); draw(); });
      return el("label", {}, box, family);
    }));
    for (const key of ["mui", "tau", "floor"]) byId(key).value = state[key];
    for (const radio of document.getElementsByName("kind")) radio.checked = radio.value === state.kind;
  };
  const listen = () => {
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    for (const key of ["mui", "tau", "floor"])
      byId(key).addEventListener("input", () => { state[key] = Number(byId(key).value); draw(); });
    for (const radio of document.getElementsByName("kind"))
      radio.addEventListener("change", () => { state.kind = radio.value; draw(); });
    byId("group").addEventListener("change", () => { state.group = Number(byId("group").value); state.open = ""; fresh(); });
    byId("hardware").addEventListener("change", () => {
      state.hardware = byId("hardware").value;
      if (state.hardware && group().hardware !== state.hardware)
        state.group = data.groups.findIndex((each) => each.hardware === state.hardware);
      fresh();
    });
    addEventListener("hashchange", () => { read(); fresh(); });
    addEventListener("resize", () => { drawChart(ordered()); drawTraces(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawChart(ordered()); drawTraces(); });
  };

  // --- the answer ----------------------------------------------------------------------------------------------------
  const margin = (first, second, mui) => {
    const one = figures.g(first, mui, state.tau), other = figures.g(second, mui, state.tau);
    const told = `${trim(100 * (one / other - 1))} % of G`;
    const spread = Math.hypot(figures.half(first, mui, state.tau), figures.half(second, mui, state.tau));
    if (Number.isNaN(spread)) return `${told}; how certain that is cannot be told, for there are no intervals`;
    if (one - other <= spread) return `${told}, less than the intervals leave open: take it as a tie`;
    const alone = first.n === 1 || second.n === 1 ? "; the spread between seeds is not in them (n = 1)" : "";
    return `${told}, more than the 95 % intervals leave open${alone}`;
  };
  const drawAnswer = (rows) => {
    const mui = 10 ** state.mui, box = byId("answer");
    const asked = `For ${count(mui)} inferences` + (state.floor ? ` and at least ${state.floor} % accuracy` : "") + `, \u03c4 = ${trim(state.tau)}:`;
    if (!rows.length) {
      box.replaceChildren(el("p", {textContent: asked}), el("p", {className: "best", textContent: "no row fits: lower the accuracy, or add a family"}));
      return;
    }
    const [first, second] = rows;
    box.replaceChildren(
      el("p", {textContent: asked}),
      el("p", {className: "best", textContent: name(first)}),
      el("p", {textContent: `${about(first)}${energy(mui * first.iec[0] + first.tec[0])} in all at ${first.acc[0].toFixed(2)} % accuracy.` +
        (second ? ` Runner-up: ${name(second)}; margin ${margin(first, second, mui)}.` : "")}),
      el("p", {textContent: `Over all numbers of inferences: ${sentence(rows)}.`}));
    if (first.estimate) box.append(el("p", {className: "estimate", textContent: "~ estimated, not measured: no meter on that machine."}));
    if (group().scale !== "full") box.append(el("p", {className: "estimate", textContent: `Scale ${group().scale}: shows that the parts fit together, says nothing about a method.`}));
  };
  const sentence = (rows) => {
    const ranges = reigns(rows);
    if (ranges.length === 1) return `${name(ranges[0].row)} at any number`;
    return ranges.map((each) => {
      if (each.from === 0) return `up to ${count(each.to)} inferences ${name(each.row)}`;
      return each.to === Infinity ? `beyond that ${name(each.row)}` : `to ${count(each.to)} ${name(each.row)}`;
    }).join("; ");
  };

  // --- the chart -----------------------------------------------------------------------------------------------------
  const colour = (slot) => getComputedStyle(document.documentElement).getPropertyValue(`--c${slot}`).trim();
  const ink = (word) => getComputedStyle(document.documentElement).getPropertyValue(`--${word}`).trim();
  const lined = (rows) => {
    const best = reigns(rows).map((each) => each.row);
    const shown = [...new Set([...rows.filter((row) => row.id === state.open), ...best, ...rows])].slice(0, LINES);
    for (const id of [...slots.keys()]) if (!shown.some((row) => row.id === id)) slots.delete(id);
    for (const row of shown)
      if (!slots.has(row.id)) slots.set(row.id, [...Array(LINES).keys()].find((slot) => ![...slots.values()].includes(slot)));
    return shown;
  };
  const muis = Array.from({length: POINTS}, (_, i) => 10 ** (FROM + (TO - FROM) * i / (POINTS - 1)));
  const power = (value) => {
    const exponent = Math.round(Math.log10(value));
    return "10" + String(exponent).replace(/./g, (sign) => sign === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[Number(sign)]);
  };
  const drawChart = (rows) => {
    const box = byId("chart");
    if (chart) chart.destroy();
    box.replaceChildren();
    chart = null;
    const shown = lined(rows);
    byId("legend").replaceChildren(...shown.map(swatch));
    const turns = reigns(rows).filter((each) => each.from >= 10 ** FROM && each.from <= 10 ** TO);
    byId("chart-hint").textContent = `${shown.length} of ${rows.length} rows: those that are best somewhere, then the best at the MUI asked for. ` +
      "Bands are 95 % intervals, circles mark where the best row changes, the upright line is the MUI asked for." +
      (shown.some((row) => Number.isNaN(figures.half(row, 1e9, state.tau))) ? " Rows without a band have no interval." : "");
    byId("crossings").textContent = turns.length ? "The best row changes at " + turns.map((each) => `${count(each.from)} (to ${name(each.row)})`).join(", ") + "." : "";
    if (!shown.length) return;
    const best = muis.map((mui) => Math.max(...rows.map((row) => figures.g(row, mui, state.tau))));
    const scaled = (value, i) => state.kind === "g" ? value : 100 * value / best[i];
    const values = [muis], series = [{}], bands = [];
    for (const row of shown) {
      const stroke = colour(slots.get(row.id));
      values.push(muis.map((mui, i) => scaled(figures.g(row, mui, state.tau), i)));
      series.push({label: name(row), stroke, width: row.id === state.open ? 3.5 : 2, dash: DASHES[slots.get(row.id)], points: {show: false}});
    }
    for (const row of shown) {
      const half = muis.map((mui) => figures.half(row, mui, state.tau));
      if (half.some(Number.isNaN)) continue;
      const g = muis.map((mui) => figures.g(row, mui, state.tau));
      values.push(g.map((value, i) => scaled(value + half[i], i)), g.map((value, i) => scaled(Math.max(value - half[i], value * 1e-3), i)));
      series.push(...[0, 1].map(() => ({stroke: "transparent", width: 0, points: {show: false}})));
      bands.push({series: [series.length - 2, series.length - 1], fill: colour(slots.get(row.id)) + "22"});
    }
    const axis = {stroke: ink("soft"), grid: {stroke: ink("line"), width: 1}, ticks: {stroke: ink("line")}, font: "13px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif"};
    const powers = (_, ticks) => ticks.map((value) => Math.abs(Math.log10(value) % 1) < 1e-9 ? power(value) : null);
    chart = new uPlot({
      width: box.clientWidth, height: Math.max(320, Math.min(460, box.clientWidth * 0.5)), series, bands, legend: {show: false},
      scales: {x: {time: false, distr: 3}, y: state.kind === "g" ? {distr: 3} : {range: (_, low, high) => [Math.max(0, low - 4), Math.min(high + 4, 140)]}},
      axes: [{...axis, label: "inferences in one life (MUI)", values: powers},
        state.kind === "g" ? {...axis, label: "G, percent^\u03c4 per W.h", size: 64, values: powers} : {...axis, label: "% of the best row's G", size: 64}],
      cursor: {points: {show: false}, drag: {x: false, y: false}},
      hooks: {draw: [(plot) => marks(plot, turns)], setCursor: [(plot) => tip(plot, shown)]},
    }, values, box);
    box.append(el("div", {className: "tip", hidden: true}));
    box.setAttribute("aria-label", `G against MUI for ${shown.map(name).join(", ")}. ${byId("crossings").textContent}`);
  };
  const swatch = (row) => {
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), line = document.createElementNS(space, "line");
    for (const [key, value] of Object.entries({width: 34, height: 8})) svg.setAttribute(key, value);
    const dash = DASHES[slots.get(row.id)].join(" ");
    for (const [key, value] of Object.entries({x1: 0, y1: 4, x2: 34, y2: 4, stroke: colour(slots.get(row.id)), "stroke-width": 3, "stroke-dasharray": dash || "none"})) line.setAttribute(key, value);
    svg.append(line);
    return el("li", {}, svg, name(row));
  };
  const marks = (plot, turns) => {
    const {ctx, bbox} = plot, at = plot.valToPos(10 ** state.mui, "x", true);
    ctx.save();
    ctx.strokeStyle = ink("accent");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([]);
    ctx.beginPath(); ctx.moveTo(at, bbox.top); ctx.lineTo(at, bbox.top + bbox.height); ctx.stroke();
    ctx.strokeStyle = ink("ink");
    ctx.fillStyle = ink("paper");
    for (const each of turns) {
      const height = state.kind === "g" ? figures.g(each.row, each.from, state.tau) : 100;
      const x = plot.valToPos(each.from, "x", true), y = plot.valToPos(height, "y", true);
      ctx.beginPath(); ctx.arc(x, y, 4.5 * devicePixelRatio, 0, 2 * Math.PI); ctx.fill(); ctx.stroke();
    }
    ctx.restore();
  };
  const tip = (plot, shown) => {
    const box = byId("chart").querySelector(".tip"), {left, idx} = plot.cursor;
    if (!box) return;
    box.hidden = left < 0 || idx === null || idx === undefined;
    if (box.hidden) return;
    const mui = muis[idx];
    const lines = shown.map((row) => ({row, g: figures.g(row, mui, state.tau)})).sort((a, b) => b.g - a.g);
    box.replaceChildren(el("b", {textContent: `${count(mui)} inferences`}), ...lines.map(({row, g}) => {
      const half = figures.half(row, mui, state.tau);
      return el("div", {textContent: `${about(row)}${number(g)}${Number.isNaN(half) ? "" : ` \u00b1${number(half, 2)}`}  ${name(row)}`});
    }));
    const right = left > plot.bbox.width / devicePixelRatio / 2;
    box.style.top = "12px";
    box.style.left = right ? "" : `${left + 84}px`;
    box.style.right = right ? `${byId("chart").clientWidth - left - 44}px` : "";
  };

  // --- the leaderboard -----------------------------------------------------------------------------------------------
  const cell = (label, text, small = "", kind = "") => {
    const made = el("td", {className: kind, textContent: text});
    made.setAttribute("role", "cell");  // a narrow screen shows rows as cards, which takes a table's roles away
    made.dataset.name = label;
    if (small) made.append(el("small", {textContent: " " + small}));
    return made;
  };
  const drawRows = (rows) => {
    const mui = 10 ** state.mui, ranks = figures.ranks(rows, mui, state.tau);
    const told = rows.some((row) => !Number.isNaN(figures.half(row, mui, state.tau)));  // without any, all would tie
    const lines = rows.flatMap((row, place) => {
      const [best, worst] = ranks[place], tie = !told || best === worst ? "" : `tie ${best}\u2013${worst}`;
      const half = figures.half(row, mui, state.tau);
      const open = row.id === state.open;
      const more = el("button", {type: "button", textContent: open ? "Less" : "Details"});
      more.setAttribute("aria-expanded", String(open));
      more.setAttribute("aria-label", `${open ? "Less" : "Details"} of ${name(row)}`);
      more.addEventListener("click", () => { state.open = open ? "" : row.id; draw(); byId("rows").querySelector(`tr[data-place="${place}"] button`)?.focus(); });
      const from = cell("Energy from", "", row.estimate ? "estimate" : row.meter);
      const badge = el("span", {className: row.estimate ? "badge estimate" : "badge", textContent: row.grade || "\u2013", title: data.grades[row.grade] || ""});
      from.prepend(badge);
      const line = el("tr", {className: place ? "" : "first"},
        cell("Rank", String(place + 1), tie, "num"), cell("Method", row.method, row.settings), cell("Network", row.network, row.precision),
        cell("Accuracy %", row.acc[0].toFixed(2), row.acc[1] !== null ? `\u00b1${row.acc[1].toFixed(2)}${row.n === 1 ? ", n = 1" : ""}` : row.n === 1 ? "n = 1" : "", "num"),
        cell("TEC W.h", about(row) + number(row.tec[0]), percent(row.tec), "num"),
        cell("IEC", about(row) + energy(row.iec[0]), percent(row.iec), "num"),
        cell("All energy", about(row) + energy(mui * row.iec[0] + row.tec[0]), "", "num"),
        cell("G", about(row) + number(figures.g(row, mui, state.tau)), Number.isNaN(half) ? "" : `\u00b1${number(half, 2)}`, "num"),
        from, el("td", {}, more));
      line.setAttribute("role", "row");
      line.dataset.id = row.id;
      line.dataset.place = place;
      return open ? [line, details(row)] : [line];
    });
    byId("rows").replaceChildren(...lines);
    const hidden = group().rows.filter((row) => !figures.known(row));
    byId("unranked").hidden = !hidden.length;
    byId("unranked").querySelector("summary").textContent = `${hidden.length} row(s) are not ranked, for something of them is unknown`;
    byId("unranked").querySelector("ul").replaceChildren(...hidden.map((row) => el("li", {textContent: `${name(row)}: ${row.missing || row.notes.join("; ") || "an energy or accuracy is unknown"}`})));
    byId("board-hint").textContent = `${rows.length} of ${group().rows.length} rows. ` + (told
      ? "A tie is a range of ranks that the 95 % intervals do not tell apart."
      : "This source prints no intervals, so how certain an order is cannot be told.");
  };

  // --- one row ---------------------------------------------------------------------------------------------------------
  const COLOURS = {base: "--c0", compress: "--c1", retrain: "--c2", use: "--c4"};
  const details = (row) => {
    const cellOfAll = el("td", {colSpan: 10}), mui = 10 ** state.mui;
    cellOfAll.append(bars(row, mui));
    if (row.even) cellOfAll.append(el("p", {textContent: row.even + "."}));
    for (const note of row.notes) cellOfAll.append(el("p", {className: "estimate", textContent: "note: " + note}));
    cellOfAll.append(row.stages.length ? stages(row) : el("p", {textContent: "This source says nothing about single stages."}));
    if (row.command) cellOfAll.append(reproduce(row));
    const line = el("tr", {className: "details"}, cellOfAll);
    return line;
  };
  const bars = (row, mui) => {
    const parts = [["base", row.phases.base], ["compress", row.phases.compress], ["retrain", row.phases.retrain]].filter(([, wh]) => wh);
    if (!parts.length) parts.push(["base", row.tec[0]]);
    parts.push(["use", mui * row.iec[0]]);
    const whole = parts.reduce((sum, [, wh]) => sum + wh, 0), bar = el("div", {className: "bars"}), key = el("p", {className: "key"});
    const words = {base: row.stages.length ? "base training" : "TEC", compress: "compression or search", retrain: "re-training", use: "use"};
    for (const [kind, wh] of parts) {
      const part = el("span"), sign = el("i");
      part.style.width = `${100 * wh / whole}%`;
      part.style.background = sign.style.background = `var(${COLOURS[kind]})`;
      bar.append(part);
      key.append(sign, `${words[kind]} ${about(row)}${energy(wh)} (${trim(100 * wh / whole)} %)`);
    }
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", key.textContent);
    return el("div", {}, el("h3", {textContent: `Where the energy of ${count(mui)} inferences goes`}), bar, key);
  };
  const stages = (row) => {
    const box = el("div", {}, el("h3", {textContent: "Stages and their records"}));
    const heads = ["Phase", "Stage", "Energy", "Time", "Mean power", "Accuracy", "Grade", "Record"];
    const body = el("tbody");
    for (const place of row.stages) {
      const each = data.stages[place];
      if (!each) continue;
      const spent = each.kind === "IEC" ? `${energy(each.iec)} an inference at batch ${each.batch}` : energy(each.wh);
      const about = each.grade === "E" ? "~" : "";
      body.append(el("tr", {},
        cell("Phase", each.phase), cell("Stage", each.stage, each.shared > 1 ? `shared by ${each.shared} lives` : ""),
        cell("Energy", about + spent, each.ci === null ? "" : `\u00b1${energy(each.ci, 2)}`),
        cell("Time", each.seconds === null ? "unknown" : `${number(each.seconds, 3)} s`),
        cell("Mean power", each.watts === null ? "unknown" : `${about}${number(each.watts, 3)} W`),
        cell("Accuracy", each.acc === null ? "\u2013" : `${each.acc.toFixed(2)} %`),
        cell("Grade", each.grade, each.meter + (each.reason ? `; ${each.reason}` : "")),
        cell("Record", `records/${each.machine}/${each.key}${each.kind === "IEC" ? ".*" : ""}.json`, `${each.created}, commit ${each.commit.slice(0, 12)}, torch ${each.torch}`)));
    }
    box.append(el("table", {className: "inner"}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", {scope: "col", textContent: head})))), body));
    const drawn = row.stages.filter((place) => data.traces[place]);
    for (const place of drawn) {
      const holder = el("div", {className: "trace"});
      holder.dataset.place = place;
      box.append(el("p", {className: "key", textContent: `Power during ${data.stages[place].stage}`}), holder);
    }
    if (!drawn.length) box.append(el("p", {className: "key", textContent: "No power over time: an estimate keeps no readings, and a meter's lie beside its record."}));
    return box;
  };
  const drawTraces = () => {
    for (const each of traces) each.destroy();
    traces = [...document.querySelectorAll(".trace")].map((holder) => {
      holder.replaceChildren();
      const points = data.traces[holder.dataset.place], axis = {stroke: ink("soft"), grid: {stroke: ink("line"), width: 1}, ticks: {stroke: ink("line")}};
      return new uPlot({
        width: holder.clientWidth, height: 170, legend: {show: false}, scales: {x: {time: false}, y: {range: (_, low, high) => [0, high * 1.08]}},
        axes: [{...axis, label: "seconds"}, {...axis, label: "W"}], series: [{}, {stroke: colour(0), width: 1.5, fill: colour(0) + "22", points: {show: false}}],
        cursor: {show: false},
      }, [points.map((point) => point[0]), points.map((point) => point[1])], holder);
    });
  };
  const reproduce = (row) => {
    const text = el("pre", {textContent: row.command, tabIndex: 0});
    const button = el("button", {type: "button", textContent: "Copy the command"}), told = el("span", {className: "key"});
    told.setAttribute("role", "status");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(row.command);
        told.textContent = " copied";
      } catch {
        getSelection().selectAllChildren(text);
        told.textContent = " selected: copy it with Ctrl+C";
      }
    });
    return el("div", {}, el("h3", {textContent: "Reproduce this number"}), text, button, told,
      el("p", {className: "key", textContent: "With this code, on this machine and in this results folder (paths.results=), it plans the same stages, and what is recorded is not run again. " +
        "Choices from outside the tree need their --config-dir; a row of an older plan (version.… in its settings) is planned anew."}));
  };

  // --- the rest --------------------------------------------------------------------------------------------------------
  const know = () => {
    const all = group().rows, lines = [];
    const meters = [...new Set(all.map((row) => row.meter).filter(Boolean))];
    lines.push(`Energy from ${meters.join(", ") || "nothing yet"}. TEC holds base training, compression or search, and re-training; what rows share counts in each.`);
    if (all.some((row) => row.estimate)) lines.push("A tilde (~) marks an estimate: there is no meter on that machine.");
    if (all.some((row) => row.n === 1)) lines.push("n = 1: intervals hold what meter and test images leave open, not the spread between seeds.");
    if (group().kind === "paper") lines.push("These are the paper's numbers, not ours. It gives no intervals and one run a row; docs/paper.md lists what in it does not add up.");
    if (group().scale !== "full") lines.push(`Scale ${group().scale} shows that the parts fit together; its rows say nothing about a method.`);
    if (data.left_out) lines.push(`${data.left_out} file(s) of the results folder were left out: python -m benchmark check names them.`);
    byId("know").replaceChildren(...lines.map((line) => el("li", {textContent: line})));
    byId("facts").replaceChildren(...Object.entries(group().facts).flatMap(([key, value]) => [el("dt", {textContent: key.replaceAll("_", " ")}), el("dd", {textContent: value})]));
    byId("grades").replaceChildren(...Object.entries(data.grades).filter(([key]) => key).flatMap(([key, value]) => [el("dt", {textContent: key}), el("dd", {textContent: value})]));
    byId("newest").textContent = data.newest ? ` from records up to ${data.newest}` : "";
  };
  const draw = () => {
    byId("mui-out").textContent = count(10 ** state.mui);
    byId("mui").setAttribute("aria-valuetext", `${count(10 ** state.mui)} inferences`);
    byId("tau-out").textContent = trim(state.tau);
    byId("floor-out").textContent = `${state.floor} %`;
    const rows = ordered();
    drawAnswer(rows);
    drawChart(rows);
    drawRows(rows);
    drawTraces();
    write();
  };
  const fresh = () => { choices(); know(); draw(); };
  if (!data.groups.length) byId("answer").textContent = "There is no row yet.";
  else { read(); listen(); fresh(); }
})();
