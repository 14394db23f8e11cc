"use strict";
// The explorer. What is shown is one state, kept in the URL's fragment as far as it is worth a link:
// #layer.neuron.signal, with @file where there are several; #surprise. All data is in the page.

const DATA = JSON.parse(document.getElementById("data").textContent);
const { model: MODEL, levels: LEVELS, documents: DOCUMENTS, labels: LABELS } = DATA;
const $ = (id) => document.getElementById(id);

const VIEWS = { neuron: "a neuron", surprise: "surprise", plain: "nothing" };
// Diverging, and told apart by the colour-blind; the second is that of Karpathy's essay.
const PALETTES = {
  "orange / blue": { low: [30, 108, 190], high: [230, 106, 10] },
  "green / blue": { low: [40, 96, 230], high: [20, 160, 80] },
};
const SURPRISE = [205, 40, 110];
const MOST_BITS = 10; // of surprise: what costs more is as red
const STRONGEST = 0.78; // of any colour: the text on it must be read
const AROUND = 72; // characters in the traces, where none were selected
const MOST_SELECTED = 160;
const MEANINGS = {
  h: "hidden", c: "cell", i: "input gate", f: "forget gate", o: "output gate", g: "candidate", z: "update gate",
  r: "reset gate", n: "candidate",
};

const state = {
  file: 0, layer: 0, neuron: 0, signal: MODEL.signals[0], view: "neuron", guesses: false, palette: Object.keys(PALETTES)[0],
  window: [0, 0], here: -1,
};
let shown = null; // the document that is shown: its characters, and what was unpacked of it
let current = null; // the neuron that is shown: {start, end, rows: {signal: Int8Array}}, where it is known
let turn = 0; // counts choices, so that one that is overtaken while it unpacks is not shown
let done = 0; // the last one that is shown

// --- data -------------------------------------------------------------------------------------------------

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function open(file) {
  const document = DOCUMENTS[file];
  const [surprise, guesses, chances, scales] = await Promise.all(
    ["surprise", "guesses", "chances", "scales"].map((name) => unpack(document[name])));
  return {
    document, characters: Array.from(document.text), surprise: new Uint16Array(surprise),
    guesses: new Uint8Array(guesses), chances: new Uint8Array(chances), scales: new Float32Array(scales),
    neurons: new Map(), planes: new Map(), lines: [],
  };
}

// What is known of a neuron: over the whole text, or in the close-up.
async function series(of, layer, neuron) {
  const key = `${layer}.${neuron}`;
  if (!of.neurons.has(key)) of.neurons.set(key, unpackSeries(of, layer, neuron));
  return of.neurons.get(key);
}

async function unpackSeries(of, layer, neuron) {
  const kept = of.document.neurons[`${layer}.${neuron}`];
  const rows = {};
  if (kept !== undefined) {
    const bytes = await unpack(kept);
    const length = of.characters.length;
    MODEL.signals.forEach((signal, index) => { rows[signal] = new Int8Array(bytes, index * length, length); });
    return { start: 0, end: length, rows };
  }
  const { start, end } = of.document.closeUp;
  for (const signal of MODEL.signals) {
    const bytes = await plane(of, layer, signal);
    rows[signal] = bytes.subarray(neuron * (end - start), (neuron + 1) * (end - start));
  }
  return { start, end, rows };
}

// All neurons of a layer in the close-up.
function plane(of, layer, signal) {
  const key = `${layer}.${signal}`;
  if (!of.planes.has(key)) {
    of.planes.set(key, unpack(of.document.closeUp.planes[key]).then((bytes) => new Int8Array(bytes)));
  }
  return of.planes.get(key);
}

const isGate = (signal) => MODEL.gates.includes(signal);
const scaleOf = (layer, neuron, signal) => (signal === "c" ? shown.scales[layer * MODEL.hidden + neuron] : 1);
const valueOf = (byte, layer, neuron, signal) => (byte / LEVELS) * scaleOf(layer, neuron, signal);

function number(value) {
  const size = Math.abs(value);
  return (size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2)).replace("-", "−");
}

function symbol(byte) {
  if (byte === 0xf8) return "∎"; // the document's end
  if (byte === 0x20) return "␣";
  if (byte === 0x0a) return "↵";
  if (byte === 0x09) return "⇥";
  if (byte > 0x20 && byte < 0x7f) return String.fromCharCode(byte);
  return byte.toString(16).padStart(2, "0"); // part of a longer character, or a control character
}

const visible = (character) => (character.length === 1 && character.charCodeAt(0) < 0x7f ? symbol(character.charCodeAt(0)) : character);

// --- colours ----------------------------------------------------------------------------------------------

function shade([red, green, blue], strength) {
  return `rgba(${red}, ${green}, ${blue}, ${(Math.min(1, strength) * STRONGEST).toFixed(3)})`;
}

function activationColour(byte) {
  const { low, high } = PALETTES[state.palette];
  return shade(byte < 0 ? low : high, Math.abs(byte) / LEVELS);
}

// The colour of a character; null where nothing is known.
function colourAt(at) {
  if (state.view === "surprise") return shade(SURPRISE, shown.surprise[at] / 100 / MOST_BITS);
  if (state.view === "plain") return "";
  if (current === null || at < current.start || at >= current.end) return null;
  return activationColour(current.rows[state.signal][at - current.start]);
}

// --- the text ---------------------------------------------------------------------------------------------

const LONGEST = 400; // characters of a piece of a line: what is on the screen alone is filled with cells

function showText() {
  const place = $("text");
  place.replaceChildren();
  shown.lines = [];
  filler.disconnect();
  const { characters, document: file } = shown;
  if (characters.length === 0) {
    const empty = Object.assign(document.createElement("p"), { className: "empty", textContent: "This file is empty: nothing to see." });
    place.append(empty);
    return;
  }
  let from = 0;
  let line = file.firstLine;
  while (from < characters.length) {
    let to = characters.indexOf("\n", from) + 1;
    if (to === 0) to = characters.length;
    for (let start = from; start < to; start += LONGEST) {
      addLine(place, start, Math.min(to, start + LONGEST), start === from ? line + 1 : "");
    }
    from = to;
    line += 1;
  }
}

function addLine(place, from, to, label) {
  const line = Object.assign(document.createElement("div"), { className: "line" });
  const code = document.createElement("code");
  code.textContent = shown.characters.slice(from, to).join("").replace(/\n$/, "");
  line.append(Object.assign(document.createElement("span"), { className: "no", textContent: label }), code);
  const entry = { from, to, code, cells: null };
  line.entry = entry;
  shown.lines.push(entry);
  place.append(line);
  filler.observe(line);
}

const filler = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting && target.entry.cells === null) fill(target.entry);
  }
}, { rootMargin: "800px" });

function fill(entry) {
  entry.cells = [];
  for (let at = entry.from; at < entry.to; at++) {
    const cell = document.createElement("span");
    cell.className = shown.characters[at] === "\n" ? "c end" : "c";
    cell.dataset.at = at;
    const character = document.createElement("b");
    character.textContent = shown.characters[at] === "\n" ? "↵" : shown.characters[at];
    cell.append(character);
    entry.cells.push(cell);
  }
  entry.code.replaceChildren(...entry.cells);
  if (state.guesses) addGuesses(entry);
  paint(entry);
}

function addGuesses(entry) {
  const next = new TextEncoder();
  entry.cells.forEach((cell, index) => {
    if (cell.children.length > 1) return;
    const at = entry.from + index;
    const came = at + 1 < shown.characters.length ? next.encode(shown.characters[at + 1])[0] : -1;
    const width = shown.guesses.length / shown.characters.length;
    for (let rank = 0; rank < width; rank++) {
      const byte = shown.guesses[at * width + rank];
      const chance = shown.chances[at * width + rank] / 255;
      const guess = Object.assign(document.createElement("i"), { textContent: symbol(byte), title: `${(100 * chance).toFixed(0)} %` });
      guess.style.backgroundColor = shade(SURPRISE, chance);
      if (byte === came) guess.className = "right";
      cell.append(guess);
    }
  });
}

function paint(entry) {
  const [low, high] = state.window;
  entry.cells.forEach((cell, index) => {
    const at = entry.from + index;
    const colour = colourAt(at);
    cell.firstChild.style.backgroundColor = colour ?? "";
    cell.classList.toggle("unknown", colour === null);
    cell.classList.toggle("chosen", at >= low && at < high);
  });
}

function paintAll() {
  for (const entry of shown.lines) if (entry.cells !== null) paint(entry);
}

function cellAt(at) {
  const entry = shown.lines.find(({ from, to }) => at >= from && at < to);
  return entry?.cells?.[at - entry.from];
}

// --- traces and strip -------------------------------------------------------------------------------------

const LEFT = 92; // room for names, in pixels
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function prepared(canvas, height) {
  const width = canvas.clientWidth;
  const density = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  context.scale(density, density);
  context.clearRect(0, 0, width, height);
  return { context, width };
}

function writeCharacters(context, step, top) {
  const [low, high] = state.window;
  context.font = `${Math.min(12, step * 1.5)}px ${css("--mono")}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let at = low; at < high; at++) {
    const character = visible(shown.characters[at]);
    context.fillStyle = at === state.here ? css("--accent") : "␣↵⇥".includes(character) ? css("--line") : css("--ink");
    context.fillText(character, LEFT + (at - low + 0.5) * step, top);
  }
}

function drawTraces() {
  const [low, high] = state.window;
  const height = 34;
  const { context, width } = prepared($("traces"), MODEL.signals.length * (height + 6) + 20);
  $("traces-title").innerHTML = `Traces <span>of neuron ${state.neuron} in layer ${state.layer + 1}, character by character</span>`;
  if (high <= low || current === null) return;
  const step = (width - LEFT) / (high - low);
  MODEL.signals.forEach((signal, index) => {
    const top = index * (height + 6) + 2;
    const bottom = isGate(signal) ? top + height : top + height / 2; // where 0 is
    const reach = isGate(signal) ? height : height / 2;
    context.fillStyle = css("--panel");
    context.fillRect(LEFT, top, width - LEFT, height);
    context.font = `12px ${css("--sans")}`;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillStyle = signal === state.signal ? css("--ink") : css("--soft");
    context.fillText(`${signal}  ${MEANINGS[signal]}`, 0, top + height / 2 - (state.here >= 0 ? 7 : 0));
    context.beginPath();
    for (let at = Math.max(low, current.start); at < Math.min(high, current.end); at++) {
      const byte = current.rows[signal][at - current.start];
      const x = LEFT + (at - low) * step;
      const y = bottom - (byte / LEVELS) * reach;
      context.fillStyle = activationColour(byte);
      context.fillRect(x, Math.min(y, bottom), step - (step > 3 ? 1 : 0), Math.max(1, Math.abs(y - bottom)));
      if (at === state.here) {
        context.fillStyle = css("--ink");
        context.font = `12px ${css("--mono")}`;
        context.fillText(number(valueOf(byte, state.layer, state.neuron, signal)), 12, top + height / 2 + 8);
      }
      context.lineTo(x, y);
      context.lineTo(x + step, y);
    }
    context.strokeStyle = css("--ink");
    context.lineWidth = 1.1;
    context.stroke();
    context.fillStyle = css("--line");
    context.fillRect(LEFT, bottom - 0.5, width - LEFT, 1);
  });
  mark(context, step, MODEL.signals.length * (height + 6));
  writeCharacters(context, step, MODEL.signals.length * (height + 6) + 9);
}

function mark(context, step, height) {
  const [low, high] = state.window;
  if (state.here < low || state.here >= high) return;
  context.strokeStyle = css("--accent");
  context.lineWidth = 1;
  context.strokeRect(LEFT + (state.here - low) * step, 0.5, step, height - 1);
}

// The neurons that are known all over the window, of the layer that is shown; all of them where the close-up has it.
async function stripRows() {
  const [low, high] = state.window;
  const { closeUp, neurons } = shown.document;
  if (closeUp !== null && low >= closeUp.start && high <= closeUp.end) {
    const bytes = await plane(shown, state.layer, state.signal);
    const length = closeUp.end - closeUp.start;
    return Array.from({ length: MODEL.hidden }, (_, neuron) => ({
      neuron, bytes: bytes.subarray(neuron * length + low - closeUp.start, neuron * length + high - closeUp.start),
    }));
  }
  const kept = Object.keys(neurons).map((key) => key.split(".").map(Number)).filter(([layer]) => layer === state.layer);
  kept.sort(([, one], [, other]) => one - other);
  return Promise.all(kept.map(async ([layer, neuron]) => ({
    neuron, bytes: (await series(shown, layer, neuron)).rows[state.signal].subarray(low, high),
  })));
}

let strip = { rows: [], step: 1, thick: 1 };

async function drawStrip() {
  const own = turn;
  const rows = await stripRows();
  if (own !== turn) return;
  const [low, high] = state.window;
  const thick = Math.max(1, Math.min(14, Math.floor(420 / Math.max(1, rows.length))));
  const { context, width } = prepared($("strip"), rows.length * thick + 20);
  const all = rows.length === MODEL.hidden;
  $("strip-title").innerHTML = `${all ? "All" : rows.length} neurons of layer ${state.layer + 1} <span>${state.signal}, ${MEANINGS[state.signal]}</span>`;
  $("strip-hint").textContent = all ? "A row is a neuron; click one to see it."
    : "Those kept for the whole text. In the close-up there are all.";
  strip = { rows, step: (width - LEFT) / Math.max(1, high - low), thick };
  if (high <= low || rows.length === 0) return;
  rows.forEach(({ neuron, bytes }, index) => {
    bytes.forEach((byte, at) => {
      context.fillStyle = activationColour(byte);
      context.fillRect(LEFT + at * strip.step, index * thick, strip.step + 0.5, thick);
    });
    if (neuron === state.neuron) {
      context.fillStyle = css("--accent");
      context.fillRect(LEFT - 6, index * thick - 1, 5, thick + 2);
      context.font = `12px ${css("--mono")}`;
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.fillText(String(neuron), LEFT - 10, index * thick + thick / 2);
    }
  });
  mark(context, strip.step, rows.length * thick);
  writeCharacters(context, strip.step, rows.length * thick + 9);
}

function drawAll() {
  drawTraces();
  drawStrip();
}

// --- what is shown ----------------------------------------------------------------------------------------

function look(from, to) {
  const length = shown.characters.length;
  const low = Math.max(0, Math.min(from, length - 1));
  state.window = [low, Math.min(length, Math.max(low + 1, Math.min(to, low + MOST_SELECTED)))];
  if (length === 0) state.window = [0, 0];
  paintAll();
  drawAll();
}

// Around a place, and within the close-up if that is where it is.
function lookAround(at) {
  const { closeUp } = shown.document;
  const inside = closeUp !== null && at >= closeUp.start && at < closeUp.end;
  const [first, last] = inside ? [closeUp.start, closeUp.end] : [0, shown.characters.length];
  const low = Math.max(first, Math.min(at - AROUND / 2, last - AROUND));
  look(low, Math.min(last, low + AROUND));
}

async function choose(changes, { link = true } = {}) {
  const file = changes.file ?? state.file;
  const own = ++turn;
  const opened = shown === null || file !== state.file ? await open(file) : shown;
  if (own !== turn) return;
  const isNew = opened !== shown;
  shown = opened;
  Object.assign(state, changes);
  state.neuron = ((state.neuron % MODEL.hidden) + MODEL.hidden) % MODEL.hidden;
  if (isNew) {
    state.here = -1;
    showText();
    showFacts();
    showList();
  }
  const found = shown.characters.length ? await series(shown, state.layer, state.neuron) : null;
  if (own !== turn) return;
  current = found;
  if (link) history.replaceState(null, "", fragment());
  showControls();
  if (isNew) {
    const { closeUp } = shown.document;
    lookAround(closeUp === null ? 0 : closeUp.start + AROUND / 2);
  } else {
    paintAll();
    drawAll();
  }
  done = own;
}

function fragment() {
  const file = state.file ? `@${state.file}` : "";
  return state.view === "surprise" ? `#surprise${file}` : `#${state.layer}.${state.neuron}.${state.signal}${file}`;
}

function fromFragment() {
  const match = /^#(?:(surprise)|(\d+)\.(\d+)(?:\.(\w))?)(?:@(\d+))?$/.exec(location.hash);
  if (match === null) return {};
  const changes = { view: match[1] ?? "neuron", file: Math.min(Number(match[5] ?? 0), DOCUMENTS.length - 1) };
  if (match[2] !== undefined) {
    changes.layer = Math.min(Number(match[2]), MODEL.layers - 1);
    changes.neuron = Math.min(Number(match[3]), MODEL.hidden - 1);
    if (MODEL.signals.includes(match[4])) changes.signal = match[4];
  }
  return changes;
}

function showFacts() {
  const { document: file, characters, surprise } = shown;
  const cost = surprise.reduce((sum, bits) => sum + bits, 0) / 100 / Math.max(1, characters.length);
  const facts = [
    `${MODEL.name}: ${MODEL.cell} ${MODEL.layers}×${MODEL.hidden}`,
    characters.length === file.characters
      ? `${file.characters.toLocaleString("en")} characters`
      : `${characters.length.toLocaleString("en")} of ${file.characters.toLocaleString("en")} characters are shown`,
  ];
  if (characters.length) facts.push(`${cost.toFixed(2)} bits a character`);
  if (file.crlf) facts.push("line ends read as ↵");
  const kept = Object.keys(file.neurons).length;
  if (file.closeUp !== null) {
    const { start, end } = file.closeUp;
    facts.push(`${kept} of ${MODEL.layers * MODEL.hidden} neurons kept for all of it, all neurons in lines ${lineOf(start)} to ${lineOf(end - 1)}`);
  }
  $("facts").textContent = facts.join(" · ");
}

const lineOf = (at) => shown.document.firstLine + 1 + shown.characters.slice(0, Math.max(0, at)).filter((one) => one === "\n").length;

function showControls() {
  for (const button of $("views").children) button.setAttribute("aria-pressed", button.value === state.view);
  for (const button of $("signals").children) button.setAttribute("aria-pressed", button.value === state.signal);
  $("document").value = state.file;
  $("layer").value = state.layer;
  $("neuron").value = state.neuron;
  $("palette").value = state.palette;
  $("guesses").checked = state.guesses;
  const scale = $("scale").getContext("2d");
  const low = isGate(state.signal) ? 0 : -LEVELS;
  scale.clearRect(0, 0, 256, 8);
  for (let x = 0; x < 256; x++) {
    scale.fillStyle = activationColour(low + ((LEVELS - low) * x) / 255);
    scale.fillRect(x, 0, 1, 8);
  }
  const most = scaleOf(state.layer, state.neuron, state.signal);
  $("ends").textContent = `${isGate(state.signal) ? "0" : number(-most)} to ${number(most)}`;
  for (const link of $("list").querySelectorAll("a")) {
    link.classList.toggle("current", link.dataset.key === `${state.layer}.${state.neuron}`);
  }
  const known = $("known");
  known.textContent = "";
  const { closeUp } = shown.document;
  const own = LABELS.filter(({ layer, neuron }) => layer === state.layer && neuron === state.neuron);
  const told = own.map(({ tracks, score }) => `tracks ${tracks} (${score.toFixed(2)})`);
  if (told.length) known.textContent = `It ${told.join(", ")}. `;
  if (closeUp !== null && current !== null && current.end - current.start < shown.characters.length) {
    const link = Object.assign(document.createElement("a"), { href: "#", textContent: `lines ${lineOf(closeUp.start)} to ${lineOf(closeUp.end - 1)}` });
    link.addEventListener("click", (event) => {
      event.preventDefault();
      lookAround(closeUp.start);
      scrollTo(closeUp.start);
    });
    known.append("Known in the close-up only: ", link, ".");
  }
}

function scrollTo(at) {
  const index = shown.lines.findIndex(({ from, to }) => at >= from && at < to);
  $("text").children[index]?.scrollIntoView({ block: "center" });
}

function showList() {
  const list = $("list");
  list.replaceChildren();
  const add = (layer, neuron, note, signal = "h") => {
    const link = document.createElement("a");
    link.href = `#${layer}.${neuron}.${signal}${state.file ? `@${state.file}` : ""}`;
    link.dataset.key = `${layer}.${neuron}`;
    link.append(`${layer + 1} · ${neuron} `, Object.assign(document.createElement("span"), { textContent: note }));
    list.append(link);
  };
  const heading = (text) => list.append(Object.assign(document.createElement("h3"), { textContent: text }));
  const named = new Set(LABELS.map(({ layer, neuron }) => `${layer}.${neuron}`));
  if (LABELS.length) {
    heading(DATA.labelled);
    for (const { layer, neuron, tracks, score, signal } of LABELS) add(layer, neuron, `${tracks} ${score.toFixed(2)}`, signal);
  }
  const kept = Object.keys(shown.document.neurons).filter((key) => !named.has(key));
  if (kept.length) heading("Those that change most slowly, the slowest first (layer · neuron)");
  for (const key of kept.slice(0, 120)) add(...key.split(".").map(Number), "");
}

// --- hover, selection, keys -------------------------------------------------------------------------------

function showTip(at, x, y) {
  const tip = $("tip");
  const width = shown.guesses.length / shown.characters.length;
  const guesses = (of) => Array.from({ length: Math.min(3, width) }, (_, rank) => {
    const index = of * width + rank;
    return `${symbol(shown.guesses[index])} ${Math.round((100 * shown.chances[index]) / 255)} %`;
  }).join(", ");
  const from = shown.lines.find((entry) => at >= entry.from && at < entry.to)?.from ?? 0;
  tip.replaceChildren();
  const say = (text, className = "") => tip.append(Object.assign(document.createElement("div"), { textContent: text, className }));
  const head = document.createElement("div");
  head.append(Object.assign(document.createElement("code"), { textContent: visible(shown.characters[at]) }),
    ` line ${lineOf(at)}, column ${at - from + 1}: ${(shown.surprise[at] / 100).toFixed(2)} bits`);
  tip.append(head);
  if (at > 0) say(`expected here: ${guesses(at - 1)}`, "odd");
  say(`next: ${guesses(at)}`, "odd");
  if (current !== null && at >= current.start && at < current.end) {
    const table = document.createElement("table");
    for (const signal of MODEL.signals) {
      const row = table.insertRow();
      row.dataset.signal = signal;
      const value = valueOf(current.rows[signal][at - current.start], state.layer, state.neuron, signal);
      [signal, number(value), MEANINGS[signal]].forEach((text) => { row.insertCell().textContent = text; });
      if (signal === state.signal) row.cells[0].className = "at";
    }
    say(`layer ${state.layer + 1}, neuron ${state.neuron}`);
    tip.append(table);
  }
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, window.innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 20 + box.height > window.innerHeight ? y - box.height - 12 : y + 20}px`;
}

function hover(at, event) {
  if (at === state.here) return;
  cellAt(state.here)?.classList.remove("here");
  state.here = at;
  if (at < 0) {
    $("tip").hidden = true;
  } else {
    cellAt(at)?.classList.add("here");
    showTip(at, event.clientX, event.clientY);
  }
  drawTraces();
}

const placeOf = (event) => {
  const cell = event.target.closest?.(".c");
  return cell ? Number(cell.dataset.at) : -1;
};

function listen() {
  let anchor = -1;
  const text = $("text");
  text.addEventListener("pointerdown", (event) => { anchor = placeOf(event); });
  text.addEventListener("pointermove", (event) => {
    const at = placeOf(event);
    hover(at, event);
    if (anchor >= 0 && at >= 0 && at !== anchor && event.buttons & 1) look(Math.min(anchor, at), Math.max(anchor, at) + 1);
  });
  text.addEventListener("pointerup", (event) => {
    const at = placeOf(event);
    if (at >= 0 && at === anchor) lookAround(at);
    anchor = -1;
  });
  text.addEventListener("pointerleave", (event) => hover(-1, event));
  const inCanvas = (event) => {
    const [low, high] = state.window;
    const at = low + Math.floor((event.offsetX - LEFT) / ((event.target.clientWidth - LEFT) / (high - low)));
    return event.offsetX >= LEFT && at < high ? at : -1;
  };
  $("traces").addEventListener("pointermove", (event) => hover(inCanvas(event), event));
  $("traces").addEventListener("pointerleave", (event) => hover(-1, event));
  $("strip").addEventListener("click", (event) => {
    const row = strip.rows[Math.floor(event.offsetY / strip.thick)];
    if (row !== undefined) choose({ neuron: row.neuron, view: "neuron" });
  });

  $("previous").addEventListener("click", () => choose({ neuron: state.neuron - 1, view: "neuron" }));
  $("next").addEventListener("click", () => choose({ neuron: state.neuron + 1, view: "neuron" }));
  $("neuron").addEventListener("change", (event) => choose({ neuron: Math.trunc(Number(event.target.value)) || 0, view: "neuron" }));
  $("layer").addEventListener("change", (event) => choose({ layer: Number(event.target.value), view: "neuron" }));
  $("document").addEventListener("change", (event) => choose({ file: Number(event.target.value) }));
  $("palette").addEventListener("change", (event) => choose({ palette: event.target.value }));
  $("guesses").addEventListener("change", toggleGuesses);
  $("theme").addEventListener("click", toggleTheme);
  window.addEventListener("hashchange", () => choose(fromFragment(), { link: false }));
  window.addEventListener("resize", () => { measure(); drawAll(); });
  window.addEventListener("keydown", press);
}

function toggleGuesses() {
  state.guesses = !state.guesses;
  $("text").classList.toggle("guesses", state.guesses);
  if (state.guesses) for (const entry of shown.lines) if (entry.cells !== null) addGuesses(entry);
  showControls();
}

function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  choose({});
}

function along(step) {
  const keys = Array.from($("list").querySelectorAll("a"), (link) => link.dataset.key);
  if (keys.length === 0) return;
  const index = keys.indexOf(`${state.layer}.${state.neuron}`);
  const start = index < 0 && step < 0 ? 0 : index;
  const [layer, neuron] = keys[(start + step + keys.length) % keys.length].split(".").map(Number);
  choose({ layer, neuron, view: "neuron" });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const signals = MODEL.signals;
  const signal = (step) => signals[(signals.indexOf(state.signal) + step + signals.length) % signals.length];
  const keys = {
    ArrowLeft: () => choose({ neuron: state.neuron - 1, view: "neuron" }),
    ArrowRight: () => choose({ neuron: state.neuron + 1, view: "neuron" }),
    n: () => along(1),
    p: () => along(-1),
    "[": () => choose({ signal: signal(-1), view: "neuron" }),
    "]": () => choose({ signal: signal(1), view: "neuron" }),
    l: () => choose({ layer: (state.layer + 1) % MODEL.layers, view: "neuron" }),
    s: () => choose({ view: state.view === "surprise" ? "neuron" : "surprise" }),
    g: toggleGuesses,
    t: toggleTheme,
  };
  if (keys[event.key] !== undefined) {
    event.preventDefault();
    keys[event.key]();
  }
}

function measure() {
  document.documentElement.style.setProperty("--header", `${document.querySelector("header").offsetHeight}px`);
}

function build() {
  const button = (value, label, title, pick) => {
    const made = Object.assign(document.createElement("button"), { value, textContent: label, title });
    made.addEventListener("click", pick);
    return made;
  };
  const option = (value, text) => new Option(text, value);
  $("views").append(...Object.entries(VIEWS).map(([view, label]) => button(view, label, "", () => choose({ view }))));
  $("signals").append(...MODEL.signals.map((signal) => button(signal, signal, MEANINGS[signal], () => choose({ signal, view: "neuron" }))));
  $("document").append(...DOCUMENTS.map(({ name }, index) => option(index, name)));
  $("document").disabled = DOCUMENTS.length === 1;
  $("palette").append(...Object.keys(PALETTES).map((name) => option(name, name)));
  $("layer").append(...Array.from({ length: MODEL.layers }, (_, layer) => option(layer, layer + 1)));
  $("neuron").max = MODEL.hidden - 1;
  document.documentElement.dataset.theme = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const first = LABELS.length ? `${LABELS[0].layer}.${LABELS[0].neuron}` : Object.keys(DOCUMENTS[0].neurons)[0] ?? "0.0";
  [state.layer, state.neuron] = first.split(".").map(Number);
  state.signal = LABELS[0]?.signal ?? state.signal;
}

build();
listen();
choose(fromFragment()).then(measure);
