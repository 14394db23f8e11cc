// What is promised of the VS Code client, in a real VS Code and with a real server.
//
//   node trial.mjs EDITOR VSIX WHEELS OUT PROGRAM [ARGS ...]
//
// EDITOR comes from get.sh; WHEELS is a directory that pip finds the server in; the program is the server's command line, without `serve`.
// Pictures and logs go to OUT. One line for each thing that holds; the first that doesn't ends it.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Code, sleep } from './code.mjs';
import { inside } from './server.mjs';

const [editor, vsix, wheels, out, ...program] = process.argv.slice(2).map((word) => (fs.existsSync(word) ? path.resolve(word) : word));
const SOURCE = `import json
import os
from pathlib import Path


class Store:
    def __init__(self, path):
        self.path = path
        self.items = {}

    def load(self):
        with open(self.path) as file:
            self.items = json.load(file)


`;
// Beginnings that any model of Python goes on from; the first that brings ghost text is used.
const STARTS = ['if __name__ == ', 'def ma', 'class Mem', 'import o', 'from ty'];
// A place at which ghost text of several lines makes a picture.
const PICTURE = `${SOURCE.trimEnd()}

    def save(self):
        with open(self.path, 'w') as `;
// Text as it might stand in many languages, which has held four times what comes next.
const BRACED = `${['settings', 'inventory', 'customers', 'orders'].map((name) => `void read_${name}(path) {
    file = open(path);
    text = read(file, everything);
    close(file);
    return text;
}

`).join('')}void read_invoices(path) {
    file = op`;
// What is typed to be timed: no ghost text is shown before any of the keys.
const CODE = `def merge(first, second):
    result = dict(first)
    for key, value in second.items():
        if key not in result:
            result[key] = value
        elif isinstance(value, dict):
            result[key] = merge(result[key], value)
    return result
`;
const KEYS = 50;
const DEBOUNCE = 50; // ms that VS Code waits after a key before it asks
const THINGS = ['order', 'invoice', 'parcel', 'voucher', 'return', 'supplier', 'customer', 'warehouse', 'payment', 'refund', 'basket', 'courier'];
const AGAIN = { 'lspCharrnn.decode.budgetMs': 5000 }; // a busy machine must not change what is suggested, as it does by the default of 50
const squeeze = (text) => text.replaceAll(/\s/g, '');
const held = (what) => console.log(`ok: ${what}`);
/** Keeps figures for `benchmarks/clients.py`, beside those of scenarios that were run before. */
function keep(figures) {
  const file = path.join(path.dirname(path.resolve(out)), 'figures', 'vscode.json');
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const before = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : {};
  fs.writeFileSync(file, JSON.stringify({ ...before, ...figures }));
}

/** Makes a directory with a project in it, a place for programs, and one for pictures. */
function prepare(scenario) {
  const run = fs.mkdtempSync(`${os.tmpdir()}/vscode-${scenario}-`);
  const folder = `${run}/project`;
  const shots = `${out}/${scenario}`;
  for (const directory of [`${folder}/.git`, `${folder}/.vscode`, `${run}/bin`, shots]) fs.mkdirSync(directory, { recursive: true });
  fs.writeFileSync(`${folder}/store.py`, SOURCE);
  return { run, folder, shots, file: `${folder}/store.py`, env: { PATH: `${run}/bin:/usr/bin:/bin` } };
}
function script(file, ...words) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `#!/bin/sh\nexec ${words.map((word) => `'${word}'`).join(' ')} "$@"\n`, { mode: 0o755 });
}

/** Starts VS Code, does what is to be done, and leaves a picture of how far it came where it fails. */
async function within(scenario, options, trial) {
  console.log(`\n${scenario}`);
  const code = await Code.start({ editor, vsix, ...options });
  try {
    await trial(code);
  } catch (error) {
    await code.shot('failed').catch(() => {});
    throw error;
  } finally {
    await code.stop();
    fs.rmSync(options.run, { recursive: true, force: true, maxRetries: 20, retryDelay: 500 });
  }
}

/** Waits for the first ghost text; returns what it came after, and it. */
async function first(code) {
  for (let tries = 0; tries < 3 * STARTS.length; tries++) { // nothing is asked before the server is ready
    const start = STARTS[tries % STARTS.length];
    const shown = await code.suggest(SOURCE + start);
    if (shown) return [start, shown];
  }
  assert.fail('no ghost text after any of the beginnings');
}

/** A folder that isn't trusted names programs and a model of its own. The server is found on PATH. */
async function untrusted() {
  const place = prepare('untrusted');
  script(`${place.run}/bin/lsp-charrnn`, ...program);
  script(`${place.folder}/.venv/bin/lsp-charrnn`, '/usr/bin/touch', `${place.run}/ran`);
  fs.writeFileSync(`${place.folder}/.vscode/settings.json`, JSON.stringify({
    'lspCharrnn.command': ['/usr/bin/touch', `${place.run}/ran`],
    'lspCharrnn.model': '/the/folders/model',
    'python.defaultInterpreterPath': `${place.folder}/.venv/bin/python`,
  }));
  await within('untrusted', { ...place, trusted: false, user: AGAIN }, async (code) => {
    await code.status('charrnn');
    const [start, shown] = await first(code);
    held(`in a folder that isn't trusted the server of PATH is used; after '${start}': ${JSON.stringify(shown)}`);
    await code.shot('ghost');
    await sleep(1000);
    assert(!fs.existsSync(`${place.run}/ran`), "the folder's program was run");
    assert.equal(await code.page.locator('.notification-toast').count(), 0); // nor is its model's absence reported
    held("neither the folder's command, nor its interpreter, nor its model has an effect");
  });
}

/** Nothing is installed: one message, and its button installs the server. */
async function nothing() {
  const place = prepare('nothing');
  for (const name of ['env', 'sh', 'bash', 'uname', 'ps', 'git']) fs.symlinkSync(`/usr/bin/${name}`, `${place.run}/bin/${name}`);
  fs.symlinkSync(`${path.dirname(program[0])}/python`, `${place.run}/bin/python3`);
  place.env = { PATH: `${place.run}/bin`, PIP_FIND_LINKS: [process.env.PIP_FIND_LINKS, wheels].filter(Boolean).join(' '), PYTHONPATH: '' };
  await within('nothing', { ...place, user: AGAIN }, async (code) => {
    await code.status('charrnn: not installed');
    const message = await code.message('its server is not installed');
    await sleep(500);
    assert.equal(await code.page.locator('.notification-toast').count(), 1);
    await code.shot('message');
    held('one message says that the server is not installed');
    await message.getByRole('button', { name: 'Install' }).click();
    await code.message('Installing lsp-charrnn');
    await sleep(500);
    await code.shot('installing');
    await code.status('charrnn');
    const [, shown] = await first(code);
    await code.shot('installed');
    held(`its button installs it: ${JSON.stringify(shown)}`);
  });
}

/** The rest is tried in a folder that is trusted, with the server beside the selected Python. */
async function trusted(scenario, trial) {
  const place = prepare(scenario);
  script(`${place.folder}/.venv/bin/lsp-charrnn`, ...program);
  fs.writeFileSync(`${place.folder}/.vscode/settings.json`, JSON.stringify({ 'python.defaultInterpreterPath': '${workspaceFolder}/.venv/bin/python' }));
  fs.writeFileSync(`${place.folder}/.gitignore`, '.venv/\n.vscode/\n');
  for (const thing of THINGS) fs.writeFileSync(`${place.folder}/${thing}s.py`, shop(thing));
  await within(scenario, { ...place, user: AGAIN }, async (code) => {
    const opened = Date.now();
    await code.status('charrnn');
    const [start, shown] = await first(code);
    console.log(`first ghost text ${Date.now() - opened} ms after the page was there; after '${start}': ${JSON.stringify(shown)}`);
    await trial(code, start, shown);
  });
}

const suggestions = () => trusted('suggestions', async (code, start, shown) => {
  await code.shot('ghost');
  held('the server beside the selected Python is used');
  await accepting(code, start, shown);
  await timing(code);
});
const menu = () => trusted('menu', async (code, start) => {
  await switching(code, start);
  await others(code);
  await pages(code, start);
  await models(code);
  await failing(code, start);
  await running(code);
});

/** What is shown behind `before`, and what `key` takes of it; on a busy machine it may be gone when the key comes, and is asked for again. */
async function taken(code, before, key, shot) {
  for (let tries = 0; tries < 8; tries++) {
    const shown = await code.suggest(before);
    if (shot) await code.shot(shot);
    await code.press(key);
    const text = (await code.save()).slice(before.length);
    if (text.trim()) return [shown, text];
  }
  assert.fail(`${key} takes nothing`);
}

async function accepting(code, start, shown) {
  await code.press('Tab');
  const text = await code.save();
  assert(text.startsWith(SOURCE + start), `the text before the cursor changed: ${JSON.stringify(text.slice(-100))}`);
  assert.equal(squeeze(text.slice((SOURCE + start).length)), squeeze(shown));
  held(`Tab takes what is shown: ${JSON.stringify(text.slice((SOURCE + start).length))}`);

  // Read in other pieces, int8 rounds a little differently, and where two lengths are worth the same the other may win.
  const again = await code.suggest(SOURCE + start);
  assert(again && (again.startsWith(shown) || shown.startsWith(again)), `${shown} first, then ${again}`);
  await code.press('Alt+]');
  await sleep(1000);
  console.log(`the next suggestion: ${JSON.stringify(await code.ghost())}`);
  await code.press('Alt+[');
  await code.becomes(again);
  held('Alt+] shows another one, Alt+[ the first again');
  await code.press('Escape');
  await code.becomes('');
  held('Escape dismisses it');

  const [whole, word] = await taken(code, PICTURE, 'Control+ArrowRight', 'several-lines');
  assert(whole.startsWith(word) && word.length < whole.length, `${JSON.stringify(word)} of ${JSON.stringify(whole)}`);
  held(`Ctrl+Right takes ${JSON.stringify(word)} of ${JSON.stringify(whole)}`);
  const [lines, line] = await taken(code, PICTURE, 'Alt+End');
  assert.equal(line.trimEnd(), lines.split('\n')[0].trimEnd());
  held(`Alt+End takes ${JSON.stringify(line)} of ${JSON.stringify(lines)}`);

  await code.replace(`${SOURCE}if True:\n`);
  await code.press('Escape');
  await code.becomes('');
  await code.press('Tab');
  assert.equal(await code.save(), `${SOURCE}if True:\n    `);
  held('Tab indents where nothing is shown');
}

async function switching(code, start) {
  await code.menu('Turn off here', 'menu');
  await code.status('charrnn: off');
  assert.equal(await code.suggest(SOURCE + start, 1500), '');
  await code.shot('off');
  await code.menu('Turn on here');
  await code.status('charrnn');
  assert(await code.suggest(SOURCE + start));
  held('the menu turns suggestions off and on');

  await code.menu('Turn off for python');
  await code.status('charrnn: off for python');
  assert.deepEqual(await code.userSetting('lspCharrnn.disabledLanguages'), ['python']);
  assert.equal(await code.suggest(SOURCE + start, 1500), '');
  await code.shot('off-for-python');
  await code.menu('Turn on for python');
  await code.status('charrnn');
  assert(await code.suggest(SOURCE + start));
  held('and for a language, at once and for good');
}

/** A language that the model of Python was not made for. */
async function others(code) {
  const { file } = code;
  for (const name of ['store.go']) {
    code.file = path.join(path.dirname(file), name);
    fs.writeFileSync(code.file, '');
    await code.press('Control+p');
    await code.pick(name);
    await code.page.waitForSelector(`.tab.active[data-resource-name="${name}"]`);
    await code.page.locator('.monaco-editor .view-lines').first().click();
    const shown = await code.suggest(BRACED);
    assert(shown, `no ghost text in ${name}`);
    await code.status('charrnn');
    held(`${name} is completed, too: ${JSON.stringify(shown)}`);
    await code.save();
    await code.press('Control+w');
  }
  code.file = file;
  await code.back();
}

async function pages(code, start) {
  await taken(code, SOURCE + start, 'Tab');
  const last = (await code.save()).split('\n').length;
  await code.menu('Show statistics');
  const text = await code.panel(/characters saved/);
  assert.match(text, /accepted\s+[1-9]/);
  await sleep(500);
  await code.shot('statistics');
  held(`the statistics say ${JSON.stringify(text.match(/accepted\s+([^\n]+)/)[1])} accepted`);
  await code.back();
  await code.menu('Open the explorer');
  await code.panel(new RegExp(`store\\.py[^]*line ${last}, `));
  await sleep(2000);
  await code.shot('explorer');
  await code.back();
  await code.press('Control+Home');
  await code.panel(/store\.py[^]*line 1, column 1/);
  held('the explorer follows the cursor');
  await exploring(code);
  for (const title of ['explorer', 'statistics']) {
    await code.page.locator('.tab').filter({ hasText: title }).first().click({ button: 'middle' });
  }
  await code.back();
}

/** The explorer is open: what it shows is what a server says, and changes with what is chosen, with the cursor and with what is in sight. */
async function exploring(code) {
  const text = `${SOURCE.trimEnd()}\n# ü 🙂\n`;
  await code.replace(text);
  const frame = await code.frame('#text [data-at]');
  const cells = frame.locator('#text [data-at]');
  const shown = async () => (await cells.allTextContents()).join('').replaceAll('↵', '\n');
  const colours = () => cells.evaluateAll((all) => all.map((cell) => cell.style.backgroundColor).join());
  const settled = async (wanted, what) => {
    for (let tries = 0; !(await wanted().catch(() => false)); tries++) assert(tries < 200, what), await sleep(200);
  };
  /** Waits until the page shows what a server of our own says of this neuron. */
  const as = async (layer, neuron) => {
    const answer = await inside(program, path.dirname(code.file), code.file, text, { layer, neuron });
    const floats = (data) => new Float32Array(Uint8Array.from(Buffer.from(data, 'base64')).buffer);
    const chance = 100 * floats(answer.chances).at(-5); // the likeliest of five behind the last symbol
    const values = Object.entries(answer.neuron.traces).map(([signal, values]) => [signal, floats(values).at(-1)]);
    await settled(async () => {
      const expected = parseFloat(await frame.locator('#expected .share').first().textContent());
      const told = await frame.locator('#told').textContent();
      const near = ([signal, value]) => Math.abs(parseFloat(told.match(new RegExp(`  ${signal} (\\S+)`))[1].replace('−', '-')) - value) < 0.05 + 0.05 * Math.abs(value);
      return Math.abs(expected - chance) < 3 && values.every(near);
    }, `the page doesn't show ${chance.toFixed(1)} % and ${values}, but ${await frame.locator('body').innerText()}`);
  };
  await settled(async () => (await shown()) === text, 'the page has another text');
  const chosen = () => Promise.all([frame.locator('#layer').inputValue(), frame.locator('#neuron').inputValue()]);
  await as(...(await chosen()).map(Number));
  await code.shot('explorer-inside');
  held(`it shows the document, what is expected at the cursor and neuron ${(await chosen()).join('.')} as a server of one's own does`);

  const before = await colours();
  await frame.locator('#neuron').fill('7');
  await frame.locator('#neuron').press('Enter');
  const [layer] = await chosen();
  await as(Number(layer), 7);
  await settled(async () => (await colours()) !== before, 'the colours are the same');
  await frame.locator('#told').click();
  await code.press('ArrowRight');
  await settled(async () => (await chosen())[1] === '8', 'the key does nothing');
  await as(Number(layer), 8);
  const by = await colours();
  await code.press('s');
  await settled(async () => (await colours()) !== by, 'surprise has the same colours');
  await code.shot('explorer-surprise');
  await code.press('s');
  held('a neuron is chosen by its number, keys step through them, and s colours by surprise');

  await code.back();
  await code.replace(shop('order'));
  const topmost = async () => Number(await frame.locator('#text .no').first().textContent());
  await settled(async () => (await topmost()) > 20, 'the top of what is shown is not the top of what is in sight');
  const top = await topmost();
  for (let times = 0; times < 5; times++) await code.press('Control+ArrowUp');
  await settled(async () => (await topmost()) === top - 5, `scrolled by five lines it shows ${await topmost()} after ${top}`);
  held('it follows scrolling');
  await code.settings({ 'workbench.colorTheme': 'Default Dark Modern' });
  await code.replace(text);
  await code.press('Control+Home');
  await settled(async () => (await shown()) === text, 'the page has another text');
  await code.shot('explorer-dark');
  await code.settings();
  assert((await first(code))[1]);
  held('ghost text comes beside it');
}

/** Types what brings ghost text at many keys, each time with none shown before. */
async function timing(code) {
  const quiet = { 'editor.autoClosingBrackets': 'never', 'editor.autoClosingQuotes': 'never', 'editor.autoIndent': 'none' };
  await code.settings({ ...quiet, 'lspCharrnn.decode.budgetMs': 50 });
  await code.replace(SOURCE);
  const times = [];
  const [load] = os.loadavg();
  let asked = 0;
  for (const key of `${CODE}\n${CODE.replaceAll('result', 'merged')}`) {
    if (times.length === KEYS) break;
    await code.press('Escape');
    await code.becomes('');
    await (key === '\n' ? code.press('Enter') : code.type(key));
    if (/\s/.test(key)) continue;
    asked++;
    if (await code.suggestion(1000)) times.push(await code.page.evaluate(() => window.ghost.at - window.ghost.key));
  }
  assert.equal(times.length, KEYS, `ghost text at ${times.length} of ${asked} keys only`);
  times.sort((a, b) => a - b);
  const at = (share) => Math.round(times[Math.floor(share * (times.length - 1))]);
  console.log(`figure: key to ghost text, ${times.length} of ${asked} keys: median ${at(0.5)} ms, ${at(0.5) - DEBOUNCE} without VS Code's debounce of ${DEBOUNCE}; ` +
    `p95 ${at(0.95)}, from ${at(0)} to ${at(1)}`);
  keep({ keys: KEYS, debounce_ms: DEBOUNCE, median_ms: at(0.5), p95_ms: at(0.95), load });
  await code.settings();
}

async function models(code) {
  const set = () => code.userSetting('lspCharrnn.model');
  await code.menu('Pick a model');
  await code.page.locator('.quick-input-list .monaco-list-row').filter({ hasText: 'Automatic' }).waitFor();
  await code.shot('models');
  await code.pick('python');
  for (let tries = 0; !(await set()); tries++) assert(tries < 100, 'no model is set'), await sleep(100);
  assert.match(await set(), /\/python$/);
  await code.status('charrnn');
  await code.menu('Pick a model');
  await code.pick('Automatic');
  for (let tries = 0; await set(); tries++) assert(tries < 100, 'the model is still set'), await sleep(100);
  held('a model can be picked, and left to the server again');
}

const training = () => trusted('training', async (code) => {
  const begin = async (minutes) => {
    await code.menu('Train on this workspace');
    await code.answer('Train on the .py files', minutes);
    // The status bar's item has the focus, and its tooltip would lie over the button. (Escape would hide the progress.)
    await code.page.locator('.monaco-editor .view-lines').first().click();
    return code.message('lsp-charrnn: training on project');
  };
  const progress = await begin('30');
  await code.status('charrnn: training .*');
  await code.page.locator('.notification-toast').filter({ hasText: 'left' }).waitFor(); // it is training by now
  assert.equal(await code.page.locator('.notification-toast').count(), 1);
  await code.shot('training');
  await progress.getByRole('button', { name: 'Cancel' }).click();
  await code.message('was stopped; the next one goes on from there');
  await code.shot('training-stopped');
  await code.command('Notifications: Clear All Notifications');
  held('training shows one progress, which stops it');

  let words = '';
  for (const minutes of ['0.5', '2', '10']) { // all in all; a busy machine needs longer to learn anything
    await begin(minutes);
    const message = await code.message('trained on project');
    words = (await message.innerText()).trim().split('\n').find((line) => line.includes('trained on'));
    if (words.endsWith('; installed.')) break;
    await code.command('Notifications: Clear All Notifications');
  }
  await code.shot('trained');
  assert.match(words, /% fewer bits on .* it had not seen.*; installed\./);
  held(`and says how it ended: ${words}`);
  await code.command('Notifications: Clear All Notifications');
  await code.status('charrnn');
  await code.back();
  await code.replace(`${SOURCE}x`); // a key, for which the new model is loaded
  await code.menu('Show statistics');
  await code.panel(/project, \d/);
  await code.shot('statistics-after-training');
  await code.page.locator('.tab').filter({ hasText: 'statistics' }).first().click({ button: 'middle' });
  await code.back();
  held("the project's model is in use");
});

async function failing(code, start) {
  await code.change('Remote', { 'lspCharrnn.command': ['/no/such/program', 'serve'] });
  const notice = await code.message('lspCharrnn.command');
  await code.status('charrnn: error');
  console.log(`a command that isn't there: "${(await notice.locator('.notification-list-item-message').innerText()).trim()}"`);
  await code.shot('error');
  assert.equal(await code.page.locator('.notification-toast').count(), 1);
  await code.command('Notifications: Clear All Notifications');
  await code.change('Remote', {});
  await code.status('charrnn');
  assert(await code.suggest(SOURCE + start));
  held('another command takes effect at once');
  await code.command('lsp-charrnn: Restart the Server');
  await first(code);
  await code.status('charrnn');
  held('a restart brings the suggestions back');
  await code.command('lsp-charrnn: Open the Log');
  await sleep(2000);
  await code.shot('log');
  await code.page.locator('.part.panel').filter({ hasText: 'lsp-charrnn' }).first().waitFor();
  held('the log can be opened');
}

/** What VS Code itself says of the extension: its activation; and its first-run page. */
async function running(code) {
  await code.command('Welcome: Open Walkthrough...');
  await code.pick('Begin with lsp-charrnn');
  await code.page.locator('.getting-started-step').filter({ hasText: 'Train it on your code' }).waitFor();
  await sleep(2000);
  await code.shot('walkthrough');
  held('the walkthrough opens');
  await code.command('Developer: Show Running Extensions');
  const rows = code.page.locator('.runtime-extensions-editor .monaco-list-row');
  const row = rows.filter({ hasText: 'lsp-charrnn' }).first();
  await rows.first().hover(); // the slowest come first, and only what is in sight is there
  for (let tries = 0; !(await row.isVisible()); tries++) assert(tries < 200, 'the extension is not running'), await code.page.mouse.wheel(0, 50), await sleep(100);
  await code.shot('running-extensions');
  const [, ms] = (await row.innerText()).match(/Activation:\s*(\d+)\s*ms/);
  console.log(`figure: activation of the extension: ${ms} ms`);
  keep({ activation_ms: Number(ms) });
}

/** A module of a shop, in the manner of all of them, and in words of its own. */
function shop(thing) {
  const name = thing[0].toUpperCase() + thing.slice(1);
  const parts = THINGS.filter((other) => other !== thing).map((other) => `
    def with_${other}(self, ${other}, ${thing}_number):
        """Return the ${thing} of this number, its ${other} replaced."""
        ${thing} = self.${thing}s_by_number[${thing}_number]
        if ${thing}.${other} is None:
            raise Missing${name}Error(f"${thing} {${thing}_number} has no ${other}")
        return ${thing}.replaced(${other}=${other}, changed_by=self.${thing}_clerk)
`);
  return `class ${name}Ledger:
    def __init__(self, ${thing}_clerk):
        self.${thing}_clerk = ${thing}_clerk
        self.${thing}s_by_number = {}
${parts.join('')}`;
}

const kilobytes = fs.statSync(vsix).size / 1000;
assert(kilobytes < 500, 'the extension is too large');
console.log(`figure: ${path.basename(vsix)}: ${kilobytes.toFixed(0)} kB`);
keep({ kilobytes });
const SCENARIOS = { untrusted, nothing, suggestions, menu, training };
const chosen = process.env.SCENARIOS?.split(' ') ?? Object.keys(SCENARIOS);
for (const scenario of chosen) await SCENARIOS[scenario]();
console.log(`\nevery assertion held; the pictures are in ${out}`);
