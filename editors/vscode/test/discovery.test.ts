// Where the server is looked for, on a machine that is made of a list of files.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environment, findPython, findServer, otherCommand, programs, type Surroundings } from '../src/discovery';

const EVERYWHERE = [
  '/venv/bin/python', '/venv/bin/lsp-charrnn', '/usr/local/bin/lsp-charrnn', '/storage/server/bin/lsp-charrnn', '/usr/bin/uvx', '/usr/bin/pipx',
];

function machine(files: string[], rest: Partial<Surroundings & { selected: string }> = {}): Surroundings {
  return {
    platform: 'linux',
    path: '/usr/local/bin:/usr/bin',
    command: [],
    storage: '/storage',
    untrusted: [],
    python: async () => rest.selected,
    isFile: (path) => files.includes(path),
    ...rest,
  };
}

async function found(files: string[], rest?: Parameters<typeof machine>[1]): Promise<string | undefined> {
  const server = await findServer(machine(files, rest));
  return server && [server.program, ...server.args].join(' ');
}

test('the first that is there is taken: setting, selected Python, PATH, own storage, uvx, pipx', async () => {
  const order = [
    '/my/server --log-level info',
    '/venv/bin/lsp-charrnn serve',
    '/usr/local/bin/lsp-charrnn serve',
    '/storage/server/bin/lsp-charrnn serve',
    '/usr/bin/uvx lsp-charrnn serve',
    '/usr/bin/pipx run lsp-charrnn serve',
    undefined,
  ];
  const rest = { command: ['/my/server', '--log-level', 'info'], selected: '/venv/bin/python' };
  assert.equal(await found(EVERYWHERE, rest), order[0]);
  for (let gone = 1; gone < order.length; gone++) {
    assert.equal(await found(EVERYWHERE.slice(gone), { ...rest, command: [] }), order[gone]);
  }
});

test('the setting is taken as it is, and no Python is asked for', async () => {
  const python = () => assert.fail('asked for a Python');
  assert.equal(await found([], { command: ['no-such-program'], python }), 'no-such-program');
});

test('a selected Python without the server is no obstacle', async () => {
  assert.equal(await found(['/env/python', '/usr/bin/lsp-charrnn'], { selected: '/env/python' }), '/usr/bin/lsp-charrnn serve');
});

test('on Windows, programs end in .exe and lie in Scripts', async () => {
  const windows = { platform: 'win32' as const, path: 'C:\\tools;D:\\bin', storage: 'C:\\storage' };
  const base = { ...windows, selected: 'C:\\Python312\\python.exe' };
  assert.equal(await found(['C:\\Python312\\Scripts\\lsp-charrnn.exe'], base), 'C:\\Python312\\Scripts\\lsp-charrnn.exe serve');
  assert.equal(await found(['C:\\venv\\Scripts\\lsp-charrnn.exe'], { ...windows, selected: 'C:\\venv\\Scripts\\python.exe' }), 'C:\\venv\\Scripts\\lsp-charrnn.exe serve');
  assert.equal(await found(['D:\\bin\\lsp-charrnn.exe'], windows), 'D:\\bin\\lsp-charrnn.exe serve');
  assert.equal(await found(['D:\\bin\\lsp-charrnn'], windows), undefined);
  assert.equal(await found(['C:\\storage\\server\\Scripts\\lsp-charrnn.exe'], windows), 'C:\\storage\\server\\Scripts\\lsp-charrnn.exe serve');
});

test('what PATH says relative to the current directory is left out', async () => {
  assert.equal(await found(['bin/lsp-charrnn', 'lsp-charrnn', './lsp-charrnn'], { path: 'bin::.' }), undefined);
});

test('nothing in a folder that is not trusted is run, wherever it was found', async () => {
  const folder = '/home/me/project';
  const inside = [`${folder}/.venv/bin/lsp-charrnn`, `${folder}/tools/uvx`];
  const rest = { selected: `${folder}/.venv/bin/python`, path: `${folder}/tools:/usr/bin` };
  assert.equal(await found(inside, rest), `${inside[0]} serve`);
  assert.equal(await found(inside, { ...rest, untrusted: [folder] }), undefined);
  assert.equal(await found(inside, { ...rest, untrusted: ['/other', `${folder}/`] }), undefined);
  assert.equal(await found(inside, { ...rest, path: `${folder}/../project/tools`, untrusted: [folder] }), undefined);
  assert.equal(await found([`${folder}/..b/lsp-charrnn`], { path: `${folder}/..b`, untrusted: [folder] }), undefined);
  assert.equal(await found([...inside, '/usr/bin/lsp-charrnn'], { ...rest, untrusted: [folder] }), '/usr/bin/lsp-charrnn serve');
  assert.equal(await found(inside, { ...rest, untrusted: ['/home/me/proj'] }), `${inside[0]} serve`); // another folder
});

test('the environment is made with the selected Python, else with that of PATH', async () => {
  const files = ['/usr/bin/python3', '/usr/bin/python'];
  assert.equal(await findPython(machine(files, { selected: '/venv/bin/python' })), '/venv/bin/python');
  assert.equal(await findPython(machine(files)), '/usr/bin/python3');
  assert.equal(await findPython(machine(files.slice(1))), '/usr/bin/python');
  assert.equal(await findPython(machine([])), undefined);
  assert.equal(environment(machine([])), '/storage/server');
  assert.equal(programs(machine([])), '/storage/server/bin');
});

test('another command has the arguments before serve', () => {
  const of = (...args: string[]) => otherCommand({ program: 'python', args, from: '' }, 'models', 'list');
  assert.deepEqual(of('-m', 'lsp_charrnn', 'serve', '--log-level', 'info'), ['-m', 'lsp_charrnn', 'models', 'list']);
  assert.deepEqual(of('serve'), ['models', 'list']);
  assert.equal(of('--stdio'), undefined);
});
