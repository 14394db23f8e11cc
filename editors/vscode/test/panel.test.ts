// What the panels make of what the server says.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Answer, explanation, Inside, named, statistics, stepped, type Wish } from '../media/panel.js';
import type { Status } from '../src/describe';
import { STATUS } from './status';

test('the statistics are counts and shares', () => {
  const rows = Object.fromEntries(statistics(STATUS).flatMap((section) => section.rows));
  assert.equal(rows['accepted'], '50 (25 %)');
  assert.equal(rows['characters saved'], '1,234');
  assert.equal(rows['answered within'], 'p50 3.0 ms, p95 10.4 ms');
  assert.equal(rows['python'], 'python, 3.4 MB');
  assert.equal(rows['/home/me/project'], '1,200 files, 3,400,000 characters');
});

test('before anything was asked the statistics divide by nothing', () => {
  const nothing = { ...STATUS, models: [], projects: [], statistics: { requests: 0, shown: 0, accepted: 0, charactersSaved: 0, latencyMs: { p50: null } } };
  const rows = Object.fromEntries(statistics(nothing).flatMap((section) => section.rows));
  assert.equal(rows['accepted'], '0');
  assert.equal(rows['answered within'], 'nothing was asked yet');
});

test('the explorer says why a document is off, and how far the model has read', () => {
  const rows = (status: Status) => Object.fromEntries(explanation(status, { path: 'src/a.py', language: 'python', cursor: { line: 11, character: 4 } }).flatMap((section) => section.rows));
  assert.equal(rows({ ...STATUS, off: 'disabledLanguages has python' })['suggestions'], 'off: disabledLanguages has python');
  const read = rows({ ...STATUS, refined: true, settled: false, remembered: true });
  assert.equal(read['cursor'], 'line 12, column 5');
  assert.equal(read['suggestions'], 'on, as python');
  assert.equal(read['around the cursor'], 'some of it');
  assert.equal(read['names in the document'], 'counted');
  assert.equal(rows(STATUS)['around the cursor'], 'not read');
});

const base64 = (data: Uint8Array) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
const floats = (...values: number[]) => base64(new Uint8Array(new Float32Array(values).buffer));

/** An answer of the server about a text that begins at line 4, column 2: each symbol's bits and signals are its number. */
function answer(text: string, signals = ['h', 'c']): Answer {
  const symbols = Buffer.from(text);
  const numbers = Array.from(symbols, (_, index) => index);
  const lines = text.split('\n');
  const end = { line: 3 + lines.length - 1, character: (lines.length === 1 ? 1 : 0) + (lines.at(-1) ?? '').length };
  return {
    range: { start: { line: 3, character: 1 }, end },
    model: { name: 'm', layers: 2, hidden: 8, signals, gates: [] },
    labels: [{ layer: 1, neuron: 5, tracks: 'brackets', score: 0.8, signal: 'c' }, { layer: 0, neuron: 2, tracks: 'strings', score: 0.7, signal: 'h' }],
    symbols: base64(symbols),
    bits: floats(...numbers),
    guesses: base64(Uint8Array.from([...numbers, numbers.length].flatMap((index) => [97 + index, 0x0a]))),
    chances: floats(...[...numbers, numbers.length].flatMap(() => [0.75, 0.25])),
    neuron: { layer: 0, neuron: 0, traces: Object.fromEntries(signals.map((signal, index) => [signal, floats(...numbers.map((n) => (index ? -2 : 0.1) * n))])) },
  };
}

test('characters have their places, and several bytes cost what they cost together', () => {
  const seen = new Inside(answer('aü🙂\nb'));
  assert.deepEqual(seen.characters.map(({ text, at, bits, line, column }) => [text, at, bits, line, column]), [
    ['a', 0, 0, 3, 1], ['ü', 2, 1 + 2, 3, 2], ['🙂', 6, 3 + 4 + 5 + 6, 3, 3], ['\n', 7, 7, 3, 5], ['b', 8, 8, 4, 0],
  ]);
  assert.equal(seen.value(2, 'c'), -12);
  assert.deepEqual(new Inside(answer('')).characters, []);
});

test('what is expected at the cursor is what is expected after the character before it', () => {
  const seen = new Inside(answer('aü\nb'));
  const at = (line: number, character: number) => seen.before({ line, character });
  assert.deepEqual([at(3, 1), at(3, 2), at(3, 3), at(4, 0), at(4, 1)], [-1, 0, 1, 2, 3]);
  assert.deepEqual([at(3, 0), at(4, 2), at(2, 9), at(5, 0)], [undefined, undefined, undefined, undefined]);
  assert.deepEqual(seen.expected(1), [{ symbol: 'd', chance: 0.75 }, { symbol: '↵', chance: 0.25 }]);
  assert.deepEqual([seen.expected(-1)[0]?.symbol, seen.expected(3)[0]?.symbol], ['a', 'f']);
  assert.equal(new Inside(answer('')).expected(-1).length, 2);
});

test('colours say the sign and the size: of the cell, by its largest here', () => {
  const seen = new Inside(answer('abc'));
  assert.deepEqual(seen.colours('c'), ['rgba(230, 106, 10, 0.000)', 'rgba(30, 108, 190, 0.390)', 'rgba(30, 108, 190, 0.780)']);
  assert.equal(seen.colours('h')[1], 'rgba(230, 106, 10, 0.078)');
  assert.equal(seen.surprise()[2], 'rgba(205, 40, 110, 0.156)');
});

test('keys step through neurons, signals, layers, and through those that mean something', () => {
  const of = answer('a', ['h', 'c', 'i']);
  const wish: Wish = { layer: 0, neuron: 0, signal: 'h' };
  const cases: [string, Partial<Wish>][] = [
    ['ArrowRight', { neuron: 1 }], ['ArrowLeft', { neuron: 7 }], [']', { signal: 'c' }], ['[', { signal: 'i' }], ['l', { layer: 1 }],
    ['n', { layer: 1, neuron: 5, signal: 'c' }], ['p', { neuron: 2 }],
  ];
  for (const [key, change] of cases) assert.deepEqual(stepped(key, wish, of), { ...wish, ...change }, key);
  assert.deepEqual(stepped('n', { layer: 0, neuron: 2, signal: 'c' }, of), { layer: 1, neuron: 5, signal: 'c' });
  assert.equal(stepped('x', wish, of), undefined);
  assert.equal(stepped('n', wish, { ...of, labels: [] }), undefined);
});

test('symbols are shown as something that can be seen', () => {
  assert.deepEqual([0x20, 0x0a, 0x09, 0xf8, 0x61, 0xc3, 0x07].map(named), ['␣', '↵', '⇥', '∎', 'a', 'c3', '07']);
});
