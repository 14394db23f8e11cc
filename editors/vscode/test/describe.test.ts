// What is said of the server's status.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explanation, isUnderWay, standing, statistics, type Status } from '../src/describe';

const PROJECT = { root: '/home/me/project', ready: true, files: 1200, characters: 3_400_000 };
const STATUS: Status = {
  state: 'ready',
  problem: null,
  enabled: true,
  models: [{ language: 'python', name: 'python', bytes: 3_420_000 }],
  projects: [PROJECT],
  trainings: [],
  statistics: { requests: 1000, shown: 200, accepted: 50, charactersSaved: 1234, latencyMs: { p50: 3.02, p95: 10.4, p99: null } },
  versions: { 'lsp-charrnn': '0.1.0' },
  pid: 7,
  off: null,
};
const PYTHON = { languageId: 'python', served: true };

test('the status bar says what is the matter, the gravest first', () => {
  const training = { root: PROJECT.root, phase: 'training', share: 0.421 };
  const cases: [string, string, Parameters<typeof standing>][] = [
    ['error', 'not installed', ['missing', undefined]],
    ['error', 'error', ['failed', STATUS, PYTHON]],
    ['loading', 'starting', ['starting', STATUS, PYTHON]],
    ['loading', 'starting', ['running', undefined, PYTHON]],
    ['error', 'error', ['running', { ...STATUS, state: 'error', problem: 'No model.', trainings: [training] }, PYTHON]],
    ['training', 'training 42 %', ['running', { ...STATUS, trainings: [training], enabled: false }, PYTHON]],
    ['off', 'off', ['running', { ...STATUS, state: 'off', enabled: false }, PYTHON]],
    ['off', 'off for markdown', ['running', STATUS, { languageId: 'markdown', served: false }]],
    ['off', 'off for python', ['running', { ...STATUS, off: 'disabledLanguages has python' }, PYTHON]],
    ['loading', 'loading', ['running', { ...STATUS, state: 'loading', projects: [{ ...PROJECT, ready: false }] }, PYTHON]],
    ['indexing', 'indexing', ['running', { ...STATUS, projects: [PROJECT, { ...PROJECT, ready: false }] }, PYTHON]],
    ['ready', 'ready', ['running', STATUS, PYTHON]],
    ['ready', 'ready', ['running', { ...STATUS, state: 'idle' }, undefined]],
  ];
  for (const [kind, text, args] of cases) {
    const said = standing(...args);
    assert.deepEqual([said.kind, said.text], [kind, text]);
    assert.match(said.detail, /^[A-Z].*\.$/);
    assert.equal(isUnderWay(said), ['loading', 'indexing', 'training'].includes(kind));
  }
});

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
  const rows = (status: Status) => Object.fromEntries(explanation(status, 'src/a.py', 'python', 12, 5).flatMap((section) => section.rows));
  assert.equal(rows({ ...STATUS, off: 'disabledLanguages has python' })['suggestions'], 'off: disabledLanguages has python');
  const read = rows({ ...STATUS, refined: true, settled: false, remembered: true });
  assert.equal(read['cursor'], 'line 12, column 5');
  assert.equal(read['suggestions'], 'on, as python');
  assert.equal(read['around the cursor'], 'some of it');
  assert.equal(read['names in the document'], 'counted');
  assert.equal(rows(STATUS)['around the cursor'], 'not read');
});
