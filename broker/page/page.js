"use strict";
// Asks /live once a second and shows what it says. No text of a peer is ever taken for HTML.
// What is to be drawn is cut into parts, and no frame gets more of them than it has time for.

const byId = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const amount = (n) => number.format(n || 0);
const rate = (n) => (n >= 10 || !n ? amount(n) : n.toFixed(1));
const time = (s) => !s ? "–" : s < 0.01 ? `${(s * 1000).toFixed(1)} ms` : s < 1 ? `${amount(s * 1000)} ms` : `${s.toFixed(1)} s`;
const bytes = (n) => !n ? "–" : n < 1024 ? `${n} B` : n < 1048576 ? `${amount(n / 1024)} KiB` : `${amount(n / 1048576)} MiB`;
const span = (s) => {
  const part = (n) => String(Math.floor(n)).padStart(2, "0");
  return `${Math.floor(s / 3600)}:${part((s / 60) % 60)}:${part(s % 60)}`;
};

const CHARTS = [
  ["Throughput", "items/s", ["rate", "refused"], ["answered", "refused"], rate],
  ["Items open", "", ["queued", "running"], ["in the queue", "at workers"], amount],
  ["Time from arrival to answer", "", ["p50", "p95", "p99"], ["p50", "p95", "p99"], time, 0.001],
  ["Items of the mean batch", "", ["batch"], ["batch"], (n) => (n || 0).toFixed(1)],
];
const COLOURS = ["--one", "--two", "--three"];

const GOOD = { warm: "good", booting: "warn", restarting: "warn", draining: "warn", drained: "warn" };
const before = new Map();

/** Mean size of a worker's batches, and the share of time it ran, since the last look. */
function lately(worker) {
  const last = before.get(worker.name + worker.model);
  if (worker.time && (!last || worker.time - last.time >= 1)) before.set(worker.name + worker.model, worker);
  if (!last || !worker.time) return last && last.shown ? last.shown : {};
  const seconds = worker.time - last.time, batches = worker.batches - last.batches;
  if (seconds < 1) return last.shown || {};
  worker.shown = {
    batch: batches > 0 ? (worker.items - last.items) / batches : 0,
    busy: Math.max(0, Math.min(1, (worker.busy - last.busy) / seconds)),
  };
  return worker.shown;
}

const MODELS = [
  ["model", (m) => m.name],
  ["state", (m) => (m.ready ? "ready" : m.workers ? "not ready" : "no worker"), (m) => (m.ready ? "good" : "bad")],
  ["items/s", (m) => rate(m.rate)],
  ["at most", (m) => (m.capacity ? rate(m.capacity) : "–")],
  ["queued", (m) => amount(m.queued)],
  ["oldest", (m) => time(m.oldest)],
  ["at workers", (m) => amount(m.running)],
  ["p50", (m) => time(m.p50)],
  ["p99", (m) => time(m.p99)],
  ["batch size", (m) => amount(m.batch_size)],
  ["workers", (m) => amount(m.workers)],
  ["wanted", (m) => amount(m.wanted)],
  ["served", (m) => amount(m.served)],
  ["failed", (m) => amount(m.failed), (m) => (m.failed ? "warn" : "")],
  ["refused", (m) => amount(m.refused), (m) => (m.refused ? "warn" : "")],
  ["trouble", (m) => (m.trouble || "").trim().split("\n").pop() || "–", () => "words"],
];
const WORKERS = [
  ["worker", (w) => w.name],
  ["model", (w) => w.model, () => "words"],
  ["device", (w) => w.device || "–", () => "words"],
  ["state", (w) => w.state, (w) => GOOD[w.state] || "bad"],
  ["window", (w) => `${w.held}/${w.window}`],
  ["batch", (w) => { const l = lately(w); return !l.batch ? "–" : l.batch.toFixed(1); }],
  ["busy", (w) => { const l = (before.get(w.name + w.model) || {}).shown || w.shown; return l ? `${Math.round(l.busy * 100)} %` : "–"; }],
  ["runs for", (w) => (w.running ? time(w.age) : "–"), (w) => (w.age > 3 ? "bad" : "")],
  ["ms/full batch", (w) => (w.ms ? w.ms.toFixed(1) : "–")],
  ["served", (w) => amount(w.served)],
  ["deaths", (w) => amount(w.deaths), (w) => (w.deaths ? "warn" : "")],
  ["last error", (w) => (w.trouble || w.death || "").trim().split("\n").pop() || "–", () => "words"],
];
const CLIENTS = [
  ["client", (c) => `${c.host || "?"}:${c.pid || "?"}`],
  ["program", (c) => [c.program, c.server].filter(Boolean).join(" / ") || "–", () => "words"],
  ["open", (c) => amount(c.open)],
  ["most open lately", (c) => amount(c.peak)],
  ["bytes open", (c) => bytes(c.bytes)],
  ["sent", (c) => amount(c.sent)],
  ["release", (c) => c.release || "–"],
];

const FRAME = 1; // ms of a frame that are spent here; layout and paint need the rest
const PART = 5; // rows of a table that are one part; page.css says how high they are

/** Puts a text into a place. Its node stays, so that no old ones have to be collected. */
function write(place, text) {
  const node = place.firstChild;
  if (!node) place.append(text);
  else if (node.data !== text) node.data = text;
}

/** Does all parts, some of them in each frame; resolves when the last is done. */
function inFrames(parts) {
  return new Promise((done, failed) => {
    const step = () => {
      const end = performance.now() + FRAME;
      try {
        while (parts.length && performance.now() < end) parts.shift()();
      } catch (error) {
        return failed(error);
      }
      return parts.length ? requestAnimationFrame(step) : done();
    };
    requestAnimationFrame(step);
  });
}

/** Returns the parts of showing rows in a table, a body each; cells that stay as they are are left alone. */
function table(id, columns, rows, empty, action) {
  const place = byId(id), parts = [() => shape(place, columns, rows.length, empty, action && acts)];
  for (let first = 0; first < rows.length; first += PART) {
    const some = rows.slice(first, first + PART);
    parts.push(() => fill(place.tBodies[first / PART], columns, some, action));
  }
  return parts;
}

/** Gives a table its head, and as many bodies as it needs. */
function shape(place, columns, count, empty, ordered) {
  if (!place.tHead) {
    place.setAttribute("role", "table"); // whatever the style makes of its parts
    const row = place.createTHead().insertRow();
    row.setAttribute("role", "row");
    for (const [name, , kind] of ordered ? [...columns, ["orders"]] : columns) {
      const cell = row.appendChild(document.createElement("th"));
      cell.scope = "col";
      cell.setAttribute("role", "columnheader");
      cell.textContent = name;
      if (kind && kind({}) === "words") cell.className = "words";
    }
  }
  const wanted = Math.max(1, Math.ceil(count / PART)), nobody = place.querySelector(".empty");
  if (nobody && count) nobody.closest("tr").remove();
  while (place.tBodies.length > wanted) place.lastElementChild.remove();
  while (place.tBodies.length < wanted) place.createTBody().setAttribute("role", "rowgroup");
  if (count || nobody) return;
  place.tBodies[0].replaceChildren();
  place.tBodies[0].lines = [];
  const cell = place.tBodies[0].insertRow().insertCell();
  cell.colSpan = columns.length;
  cell.className = "empty";
  cell.textContent = empty;
}

/** Makes a row of a body; returns it with its cells and what they show, so that nothing asks the page. */
function line(body, columns) {
  const row = body.insertRow();
  row.setAttribute("role", "row");
  const cells = columns.map((_, j) => {
    const cell = row.appendChild(document.createElement(j ? "td" : "th"));
    if (!j) cell.scope = "row";
    cell.setAttribute("role", j ? "cell" : "rowheader");
    return { cell, node: cell.appendChild(document.createTextNode("")), text: "", style: "" };
  });
  return { row, cells };
}

function fill(body, columns, rows, action) {
  const lines = body.lines ||= [];
  while (lines.length > rows.length) lines.pop().row.remove();
  rows.forEach((row, i) => {
    const { row: place, cells } = lines[i] ||= line(body, columns);
    columns.forEach(([, show, kind], j) => {
      const one = cells[j], text = show(row), style = kind ? kind(row) : "";
      if (one.text !== text) {
        one.node.data = one.text = text;
        if (style === "words") one.cell.title = text;
      }
      if (one.style !== style) one.cell.className = one.style = style;
    });
    if (action && acts) buttons(place.cells[columns.length] || place.insertCell(), action(row));
  });
}

const plots = [];
let steps = [], paused = false, acts = false;

/** Returns the parts of drawing the charts. */
function draw(keys) {
  const place = byId("charts");
  while (place.children.length < CHARTS.length) { // all of them first: their number is their width
    place.appendChild(document.createElement("figure")).className = "chart";
  }
  return CHARTS.map(([title, unit, names, labels, show, least = 4], i) => () => {
    const now = steps.length ? steps.at(-1)[0] : 0;
    const data = [steps.map((s) => s[0] - now), ...names.map((n) => steps.map((s) => s[keys.indexOf(n)]))];
    if (!plots[i]) {
      const figure = place.children[i];
      const caption = figure.appendChild(document.createElement("figcaption"));
      const bold = caption.appendChild(document.createElement("b"));
      bold.textContent = unit ? `${title}, ${unit}` : title;
      const legend = labels.map((label, k) => {
        const one = caption.appendChild(document.createElement("span"));
        one.style.setProperty("--key", `var(${COLOURS[k]})`);
        return one;
      });
      const axis = { stroke: () => css("--dim"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false } };
      const plot = new uPlot({
        width: figure.clientWidth - 20, height: 170, legend: { show: false }, cursor: { show: false },
        padding: [10, 12, 0, 0],
        scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(high || 0, least) * 1.1] } },
        axes: [
          { ...axis, size: 26, incrs: [1, 2, 5, 10, 20, 30, 60], values: (_, at) => at.map((t) => (t < 0 ? `−${span(-t).slice(2)}` : "now")) },
          { ...axis, size: 62, values: (_, at) => at.map((n) => (n ? show(n) : "0")) },
        ],
        series: [{}, ...names.map((_, k) => ({ stroke: () => css(COLOURS[k]), width: 1.5, points: { show: false } }))],
      }, data, figure);
      plot.root.setAttribute("aria-hidden", "true");
      figure.setAttribute("role", "img");
      plots[i] = { plot, figure, legend };
      new ResizeObserver(() => plot.setSize({ width: figure.clientWidth - 20, height: 170 })).observe(figure);
    } else {
      plots[i].plot.setData(data);
    }
    const last = steps.at(-1) || [];
    const said = names.map((n, k) => `${labels[k]} ${show(last[keys.indexOf(n)])}`);
    plots[i].legend.forEach((one, k) => write(one, said[k]));
    plots[i].figure.setAttribute("aria-label", `${title}: ${said.join(", ")}`);
  });
}

function figures(live, last, keys) {
  const at = (name) => last[keys.indexOf(name)];
  const shown = [
    ["items/s", rate(at("rate"))], ["queued", amount(at("queued"))], ["at workers", amount(at("running"))],
    ["p50", time(at("p50"))], ["p99", time(at("p99"))], ["mean batch", (at("batch") || 0).toFixed(1)],
    ["workers", amount(live.counts.workers)], ["clients", amount(live.counts.clients)],
  ];
  const place = byId("figures");
  shown.forEach(([name, value], i) => {
    let box = place.children[i];
    if (!box) {
      box = place.appendChild(document.createElement("div"));
      box.appendChild(document.createElement("dt")).textContent = name;
      box.appendChild(document.createElement("dd"));
    }
    write(box.lastChild, value);
  });
}

const worker = (w) => [[w.drained ? "resume" : "drain", w.name], ["refuse", w.name]];
const client = (c) => [["refuse", `${c.host || "-"}:${c.pid || "-"}`]];

/** Shows a button for each order, an action and a name. */
function buttons(place, orders) {
  orders.forEach(([action, name], i) => {
    let one = place.querySelectorAll("button")[i];
    if (!one) {
      one = place.appendChild(document.createElement("button"));
      one.type = "button";
    }
    const label = `${action} ${name}`;
    if (one.getAttribute("aria-label") === label) return;
    write(one, action);
    one.setAttribute("aria-label", label);
    one.onclick = () => order(action, name);
  });
}

/** Shows the names that are drained or refused, with a way back. */
function orders(live) {
  const held = [...live.held.map((n) => [n, "drained"]), ...live.refused.map((n) => [n, "refused"])];
  const text = JSON.stringify(held), place = byId("held");
  if (!acts || place.dataset.shown === text) return;
  place.dataset.shown = text;
  place.replaceChildren(...held.map(([name, how]) => {
    const one = document.createElement("li");
    one.appendChild(document.createElement("span")).textContent = `${name} is ${how} `;
    buttons(one, [["resume", name]]);
    return one;
  }));
}

async function order(action, name) {
  if (action === "refuse" && !confirm(`End the session of ${name}, and let it not come back?`)) return;
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${byId("token").value}` };
  try {
    const answer = await fetch("/operator", { method: "POST", headers, body: JSON.stringify({ action, name }) });
    const said = await answer.json();
    byId("said").textContent = answer.ok ? `${name}: ${action} is done` : said.error;
  } catch (error) {
    byId("said").textContent = `the broker does not answer: ${error.message}`;
  }
}

function show(live) {
  const { keys } = live;
  if (steps.length && live.uptime < steps.at(-1)[0]) steps = []; // another start of the broker
  steps = steps.concat(live.steps).slice(-300);
  acts = live.acts;
  byId("operator").hidden = !acts;
  orders(live);
  const ill = live.models.filter((m) => !m.ready).map((m) => m.name);
  const words = [`up for ${span(live.uptime).replace(/:\d\d$/, "")} h`];
  if (live.draining) words.push("draining: it refuses new items");
  if (ill.length) words.push(`not ready: ${ill.join(", ")}`);
  else words.push(live.counts.models ? "all models ready" : "no worker is connected");
  write(byId("state"), words.join("; "));
  byId("state").className = ill.length || live.draining ? "bad" : "";
  figures(live, steps.at(-1) || [], keys);
  const more = live.counts.clients - live.clients.length;
  byId("clients-title").textContent = more > 0 ? `Clients: the busiest ${live.clients.length} of ${live.counts.clients}` : "Clients";
  return inFrames([
    ...draw(keys),
    ...table("models", MODELS, live.models, "No worker is connected: zstreamer worker MODULE:NAME starts one."),
    ...table("workers-table", WORKERS, live.workers, "No worker is connected.", worker),
    ...table("clients", CLIENTS, live.clients, "No client is connected.", client),
  ]);
}

async function turn() {
  if (!paused && !document.hidden) {
    try {
      const since = steps.length ? steps.at(-1)[0] : 0;
      const token = byId("reader-token").value;
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const answer = await fetch(`/live?since=${since}`, { headers, signal: AbortSignal.timeout(5000) });
      byId("reader").hidden = answer.status !== 401;
      if (answer.status === 401) byId("state").textContent = "this broker asks for a token";
      else await show(await answer.json());
    } catch (error) {
      byId("state").textContent = "the broker does not answer; what is shown is old";
      byId("state").className = "bad";
    }
  }
  setTimeout(turn, 1000);
}

byId("pause").onclick = () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
};
byId("reader").onsubmit = byId("operator").onsubmit = (event) => event.preventDefault();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(({ plot }) => plot.redraw()));
turn();
