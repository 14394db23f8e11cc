// @ts-check
// What the panels show: what the server says, put into words and colours. The extension hands it on as it comes, puts this
// script into panel.html, and asks anew when the cursor or the text has moved, or another neuron is chosen here.

/** @typedef {import('../src/describe').Status} Status */
/** @typedef {{ title: string, rows: [string, string][] }} Section a table: its rows' names and values */
/** @typedef {{ line: number, character: number }} Position counted from 0, in UTF-16 */
/** @typedef {{ layer: number, neuron: number, tracks: string, score: number, signal: string }} Label */
/** @typedef {{ problem: string }} Refusal */
/** @typedef {{ status?: Status, inside?: Answer | Refusal | null, path: string, language: string, cursor: Position }} Seen */
/**
 * The answer to `lspCharrnn/inside`; bytes and little-endian float32 in base64.
 * @typedef {object} Answer
 * @property {{ start: Position, end: Position }} range
 * @property {{ name: string, layers: number, hidden: number, signals: string[], gates: string[] }} model
 * @property {Label[]} labels
 * @property {string} symbols
 * @property {string} bits
 * @property {string} guesses
 * @property {string} chances
 * @property {{ layer: number, neuron: number, traces: Record<string, string> }} neuron
 */
/** @typedef {{ text: string, at: number, bits: number, line: number, column: number }} Character `at`: its last symbol */
/** @typedef {{ symbol: string, chance: number }} Guess */
/** @typedef {{ layer: number, neuron: number, signal: string }} Wish */

const MEANINGS = /** @type {Record<string, string>} */ ({
  h: 'hidden state', c: 'cell', i: 'input gate', f: 'forget gate', o: 'output gate', g: 'candidate', z: 'update gate', r: 'reset gate', n: 'candidate',
});
// As in the page that `lsp-charrnn explore` writes: diverging, told apart by the colour-blind, and never too strong to read through.
const LOW = [30, 108, 190];
const HIGH = [230, 106, 10];
const SURPRISE = [205, 40, 110];
const MOST_BITS = 10; // of surprise: what costs more is as red
const STRONGEST = 0.78;

/** @type {Section[]} */
const SILENCE = [{ title: 'The server does not answer', rows: [] }];

// --- in words ---------------------------------------------------------------------------------------------

/** @param {Status} status @returns {Section[]} */
export function statistics(status) {
  const { requests, shown, accepted, charactersSaved, latencyMs } = status.statistics;
  const late = Object.entries(latencyMs).flatMap(([name, ms]) => (ms === null ? [] : [`${name} ${ms.toFixed(1)} ms`]));
  return [
    {
      title: 'Suggestions since the server was started',
      rows: [
        ['shown', number(shown)],
        ['accepted', shown ? `${number(accepted)} (${percent(accepted / shown)})` : number(accepted)],
        ['characters saved', number(charactersSaved)],
        ['requests answered', number(requests)],
        ['answered within', late.join(', ') || 'nothing was asked yet'],
      ],
    },
    { title: 'Models', rows: models(status.models) },
    { title: 'Memory of projects', rows: status.projects.map(project) },
    { title: 'Server', rows: [...Object.entries(status.versions), ['process', String(status.pid)]] },
  ];
}

/** What the server says of a document, and of the place in it. @param {Status} status @param {Seen} seen @returns {Section[]} */
export function explanation(status, { path, language, cursor }) {
  /** @param {boolean | undefined} yes @param {string} done @param {string} open */
  const known = (yes, done, open) => (yes === undefined ? 'not read' : yes ? done : open);
  return [
    {
      title: path,
      rows: [
        ['cursor', `line ${number(cursor.line + 1)}, column ${number(cursor.character + 1)}`],
        ['suggestions', status.off ? `off: ${status.off}` : `on, as ${language}`],
      ],
    },
    {
      title: 'What the model has read',
      rows: [
        ['before the cursor', known(status.refined, 'enough for its expectations to be final', 'too little still: its expectations are first ones')],
        ['around the cursor', known(status.settled, 'all of it', 'some of it')],
        ['names in the document', known(status.remembered, 'counted', 'being counted')],
      ],
    },
    { title: 'Model', rows: models(status.models.filter((model) => model.language === language)) },
    { title: 'Memory of projects', rows: status.projects.map(project) },
  ];
}

/** @param {Status['models']} all @returns {[string, string][]} */
function models(all) {
  return all.length ? all.map(({ language, name, bytes }) => [language, `${name}, ${(bytes / 1e6).toFixed(1)} MB`]) : [['none', 'nothing has been completed yet']];
}

/** @param {Status['projects'][number]} project @returns {[string, string]} */
function project({ root, ready, files, characters }) {
  return [root, ready ? `${number(files)} ${files === 1 ? 'file' : 'files'}, ${number(characters)} characters` : 'being read'];
}

/** @param {number} value */
const number = (value) => value.toLocaleString('en');
/** @param {number} share */
const percent = (share) => `${Math.round(100 * share)} %`;

// --- what was seen ----------------------------------------------------------------------------------------

/** @param {string} text */
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
/** @param {string} text */
const floats = (text) => new Float32Array(bytes(text).buffer);

/** What an answer says, unpacked: its characters (a line end is one), and what the model expected around each symbol. */
export class Inside {
  /** @param {Answer} answer */
  constructor(answer) {
    this.answer = answer;
    this.symbols = bytes(answer.symbols);
    const bits = floats(answer.bits);
    this.guesses = bytes(answer.guesses);
    this.chances = floats(answer.chances);
    this.traces = /** @type {Record<string, Float32Array>} */ (
      Object.fromEntries(Object.entries(answer.neuron.traces).map(([name, values]) => [name, floats(values)])));
    /** @type {Character[]} */
    this.characters = [];
    const decoder = new TextDecoder();
    let { line, character: column } = answer.range.start;
    for (let start = 0; start < this.symbols.length; ) {
      let end = start + 1;
      while (end < this.symbols.length && (this.symbols[end] & 0xc0) === 0x80) end++;
      const text = decoder.decode(this.symbols.subarray(start, end));
      const cost = bits.subarray(start, end).reduce((sum, one) => sum + one, 0); // of several bytes: what they cost together
      this.characters.push({ text, at: end - 1, bits: cost, line, column });
      [line, column] = text === '\n' ? [line + 1, 0] : [line, column + text.length];
      start = end;
    }
  }

  /** Which character is before the cursor, -1 for none; undefined where the cursor is elsewhere. @param {Position} cursor */
  before(cursor) {
    const { start, end } = this.answer.range;
    if (after(start, cursor) || after(cursor, end)) return undefined;
    const next = this.characters.findIndex(({ line, column }) => !after(cursor, { line, character: column }));
    return (next < 0 ? this.characters.length : next) - 1;
  }

  /** What was expected after a character, -1 for what is before the first; the likeliest first. @param {number} index @returns {Guess[]} */
  expected(index) {
    const place = (this.characters[index]?.at ?? -1) + 1;
    const width = this.guesses.length / (this.symbols.length + 1);
    return Array.from({ length: width }, (_, rank) => ({ symbol: named(this.guesses[place * width + rank]), chance: this.chances[place * width + rank] }));
  }

  /** @param {number} index @param {string} signal */
  value(index, signal) {
    return this.traces[signal][this.characters[index].at];
  }

  /** The colour of each character by a signal; the cell's by its largest value here. @param {string} signal */
  colours(signal) {
    const values = this.characters.map((_, index) => this.value(index, signal));
    const most = signal === 'c' ? Math.max(1e-6, ...values.map(Math.abs)) : 1;
    return values.map((value) => shade(value < 0 ? LOW : HIGH, Math.abs(value) / most));
  }

  /** And by what each cost. */
  surprise() {
    return this.characters.map(({ bits }) => shade(SURPRISE, bits / MOST_BITS));
  }
}

/** @param {Position} one @param {Position} other */
const after = (one, other) => one.line > other.line || (one.line === other.line && one.character > other.character);

/** @param {number[]} colour @param {number} strength */
const shade = (colour, strength) => `rgba(${colour.join(', ')}, ${(Math.min(1, strength) * STRONGEST).toFixed(3)})`;

/** A symbol as it can be shown. @param {number} byte */
export function named(byte) {
  if (byte === 0xf8) return '∎'; // the document's end
  if (byte > 0x20 && byte < 0x7f) return String.fromCharCode(byte);
  return { 0x20: '␣', 0x0a: '↵', 0x09: '⇥' }[byte] ?? byte.toString(16).padStart(2, '0'); // part of a longer character, or a control character
}

/** The wish that a key makes of another one; undefined: none. @param {string} key @param {Wish} wish @param {Answer} answer @returns {Wish | undefined} */
export function stepped(key, wish, { model, labels }) {
  /** @param {number} index @param {number} length */
  const within = (index, length) => (index + length) % length;
  /** @param {number} step */
  const neuron = (step) => ({ ...wish, neuron: within(wish.neuron + step, model.hidden) });
  /** @param {number} step */
  const signal = (step) => ({ ...wish, signal: model.signals[within(model.signals.indexOf(wish.signal) + step, model.signals.length)] });
  /** @param {number} step */
  const along = (step) => {
    if (labels.length === 0) return undefined;
    const here = labels.findIndex((label) => label.layer === wish.layer && label.neuron === wish.neuron);
    const { layer, neuron, signal } = labels[here < 0 ? (step > 0 ? 0 : labels.length - 1) : within(here + step, labels.length)];
    return { layer, neuron, signal };
  };
  switch (key) {
    case 'ArrowLeft': return neuron(-1);
    case 'ArrowRight': return neuron(1);
    case 'n': return along(1);
    case 'p': return along(-1);
    case '[': return signal(-1);
    case ']': return signal(1);
    case 'l': return { ...wish, layer: within(wish.layer + 1, model.layers) };
    default: return undefined;
  }
}

// --- the page ---------------------------------------------------------------------------------------------

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {object} properties @param {...(Node | string)} inside @returns {HTMLElementTagNameMap[Tag]}
 */
function made(tag, properties, ...inside) {
  const element = document.createElement(tag);
  Object.assign(element, properties).append(...inside);
  return element;
}

/** @param {Section[]} sections */
const tables = (sections) => sections.flatMap(({ title, rows }) => [
  made('h2', {}, title),
  made('table', {}, ...rows.map(([name, value]) => made('tr', {}, made('th', {}, name), made('td', {}, value)))),
]);

/** What is chosen, what was seen last, and how both are shown. */
class Explorer {
  /** @param {{ postMessage(wish: object): void, getState(): any, setState(state: object): void }} host */
  constructor(host) {
    this.host = host;
    const kept = host.getState() ?? {};
    this.wish = /** @type {Wish} */ ({ layer: 0, neuron: 0, signal: 'h', ...kept.wish });
    this.chosen = kept.wish !== undefined; // else the first neuron that means something is, once they are known
    this.surprise = kept.surprise === true;
    this.seen = /** @type {Seen | undefined} */ (undefined);
    this.inside = /** @type {Inside | undefined} */ (undefined);
    addEventListener('keydown', (event) => this.press(event));
    host.postMessage(this.wish); // that it is there
  }

  /** @param {Seen} seen */
  take(seen) {
    const { inside } = seen;
    if (inside && 'symbols' in inside) this.inside = new Inside(inside);
    else if (inside || seen.status?.off || this.seen?.path !== seen.path) this.inside = undefined; // else an edit has overtaken it: another one is under way
    const first = this.inside?.answer.labels[0];
    this.seen = seen;
    if (!this.chosen && first) return this.choose(first);
    // Another model may have fewer of them.
    if (inside && 'problem' in inside && this.wish.layer + this.wish.neuron > 0) return this.choose({ layer: 0, neuron: 0, signal: 'h' });
    this.show();
  }

  /** @param {Wish} wish */
  choose({ layer, neuron, signal }) {
    this.wish = { layer, neuron, signal };
    this.chosen = true;
    this.keep();
    this.host.postMessage(this.wish);
  }

  keep() {
    this.host.setState({ wish: this.wish, surprise: this.surprise });
  }

  /** @param {boolean} surprise */
  colourBy(surprise) {
    this.surprise = surprise;
    this.keep();
    this.show();
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(/** @type {Element} */ (event.target).tagName)) return;
    if (event.key === 's') return this.colourBy(!this.surprise);
    const wish = this.inside && stepped(event.key, this.wish, this.inside.answer);
    if (!wish) return;
    event.preventDefault();
    this.choose(wish);
  }

  show() {
    const { seen, inside } = this;
    if (!seen) return;
    const focus = document.activeElement?.id; // what has it is made anew
    const problem = seen.inside && 'problem' in seen.inside ? [made('p', { className: 'problem' }, seen.inside.problem)] : [];
    const sections = seen.status ? explanation(seen.status, seen) : SILENCE;
    document.body.replaceChildren(
      ...tables(sections.slice(0, 1)), ...problem,
      ...(inside ? [this.controls(inside), this.expectations(inside, seen.cursor), this.text(inside, seen.cursor)] : []),
      ...tables(sections.slice(1)),
    );
    if (focus) document.getElementById(focus)?.focus();
  }

  /** @param {Inside} inside */
  controls({ answer: { model, labels } }) {
    const { layer, neuron, signal } = this.wish;
    /** @param {string} text @param {string} title @param {boolean} pressed @param {() => void} onclick */
    const button = (text, title, pressed, onclick) => made('button', { id: `by-${text}`, title, ariaPressed: String(pressed), onclick }, text);
    const here = labels.findIndex((label) => label.layer === layer && label.neuron === neuron);
    const list = made('select', { id: 'list', title: 'Neurons that track something (n, p)', onchange: () => this.choose(labels[Number(list.value)]) },
      ...(here < 0 ? [new Option(`${labels.length} that track something`, '', true, true)] : []),
      ...labels.map(({ layer, neuron, tracks, score }, index) => new Option(`${tracks} ${score.toFixed(2)} (${layer + 1} · ${neuron})`, String(index), false, index === here)));
    const layers = made('select', { id: 'layer', title: 'Layer (l)', onchange: () => this.choose({ ...this.wish, layer: Number(layers.value) }) },
      ...Array.from({ length: model.layers }, (_, index) => new Option(`layer ${index + 1}`, String(index), false, index === layer)));
    const which = made('input', {
      id: 'neuron', type: 'number', min: '0', max: String(model.hidden - 1), value: String(neuron), title: 'Neuron (← →)',
      onchange: () => this.choose({ ...this.wish, neuron: Math.max(0, Math.min(model.hidden - 1, Math.trunc(Number(which.value)))) }),
    });
    return made('div', { className: 'controls' },
      ...(labels.length ? [list] : []), layers, made('label', {}, 'neuron ', which),
      made('span', {}, ...model.signals.map((one) => button(one, MEANINGS[one] ?? one, !this.surprise && one === signal, () => {
        this.surprise = false;
        this.choose({ ...this.wish, signal: one });
      }))),
      button('surprise', 'What each character cost (s)', this.surprise, () => this.colourBy(!this.surprise)));
  }

  /** @param {Inside} inside @param {Position} cursor */
  expectations(inside, cursor) {
    const before = inside.before(cursor);
    const rows = before === undefined ? [] : inside.expected(before).map(({ symbol, chance }) => {
      const bar = made('div', { className: 'bar' });
      bar.style.width = `${(100 * chance).toFixed(1)}%`;
      return made('tr', {}, made('td', {}, made('code', {}, symbol)), made('td', { className: 'share' }, `${(100 * chance).toFixed(1)} %`), made('td', { className: 'bars' }, bar));
    });
    return made('div', { id: 'expected' }, made('h2', {}, 'Expected at the cursor, by the model alone'),
      rows.length ? made('table', {}, ...rows) : made('p', { className: 'soft' }, 'The cursor is out of sight.'));
  }

  /** @param {Inside} inside @param {Position} cursor */
  text(inside, cursor) {
    const colours = this.surprise ? inside.surprise() : inside.colours(this.wish.signal);
    const before = inside.before(cursor);
    const told = made('p', { id: 'told', className: 'soft' }, this.told(inside, before));
    const place = made('div', { id: 'text' });
    let line = -1;
    let code = document.createElement('code');
    inside.characters.forEach((character, index) => {
      if (character.line !== line) {
        line = character.line;
        code = document.createElement('code');
        place.append(made('div', { className: 'line' }, made('span', { className: 'no' }, String(line + 1)), code));
      }
      const cell = made('span', { className: character.text === '\n' ? 'end' : '' }, character.text === '\n' ? '↵' : character.text);
      cell.dataset.at = String(index);
      cell.style.backgroundColor = colours[index];
      if (index === before) cell.classList.add('before');
      code.append(cell);
    });
    place.addEventListener('pointerover', ({ target }) => {
      const at = /** @type {HTMLElement} */ (target).dataset.at;
      told.textContent = this.told(inside, at === undefined ? before : Number(at));
    });
    place.addEventListener('pointerleave', () => { told.textContent = this.told(inside, before); });
    return made('div', {}, told, place);
  }

  /** A character's numbers, in a line. @param {Inside} inside @param {number | undefined} index */
  told(inside, index) {
    const character = index === undefined ? undefined : inside.characters[index];
    if (character === undefined || index === undefined) return ' ';
    /** @param {number} value */
    const short = (value) => value.toFixed(2).replace('-', '−');
    const instead = inside.expected(index - 1).slice(0, 3).map(({ symbol, chance }) => `${symbol} ${percent(chance)}`).join(', ');
    const values = inside.answer.model.signals.map((signal) => `${signal} ${short(inside.value(index, signal))}`).join('  ');
    return `${character.text === '\n' ? '↵' : character.text}  line ${character.line + 1}, column ${character.column + 1}: ${short(character.bits)} bits` +
      `${instead && ` (expected: ${instead})`}  ${values}`;
  }
}

const host = /** @type {any} */ (globalThis).acquireVsCodeApi?.();
if (host) {
  const explorer = new Explorer(host);
  addEventListener('message', ({ data }) => {
    if (data.empty) document.body.replaceChildren(made('h2', {}, data.empty));
    else if ('path' in data) explorer.take(data);
    else document.body.replaceChildren(...tables(data.status ? statistics(data.status) : SILENCE));
  });
}
