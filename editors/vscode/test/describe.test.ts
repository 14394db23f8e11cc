// What is said of the server's status.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isUnderWay, standing } from '../src/describe';
import { PROJECT, STATUS } from './status';

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
