// Called by vscode.sh: types in VS Code by headless Chromium, reads what the page shows, asserts what the file holds.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const [editor, port, run, ...command] = process.argv.slice(2);
const { chromium } = createRequire(`${editor}/package.json`)('playwright-core');
const path = `${run}/project/store.py`;
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
const KEYS = 30;

const SETTINGS = {
  'lspCharrnn.decode.budgetMs': 500, // a busy machine must not change what is suggested, as it does by the default of 50
  'security.workspace.trust.startupPrompt': 'never',
  'security.workspace.trust.banner': 'never',
  'chat.disableAIFeatures': true,
  'editor.wordBasedSuggestions': 'off',
  'editor.quickSuggestions': { other: 'off', comments: 'off', strings: 'off' },
  'editor.minimap.enabled': false,
  'workbench.startupEditor': 'none',
  'workbench.editor.useModal': 'off',
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'telemetry.telemetryLevel': 'off',
  'extensions.autoUpdate': false,
  'extensions.autoCheckUpdates': false,
};

fs.writeFileSync(path, SOURCE);
fs.writeFileSync(`${run}/data/User/settings.json`, JSON.stringify(SETTINGS));
// The command belongs to the machine that the server runs on: in a remote window, which code-server's is, to the remote settings.
fs.writeFileSync(`${run}/data/Machine/settings.json`, JSON.stringify({ 'lspCharrnn.command': command }));
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await browser.newPage({ viewport: { width: 900, height: 520 } });
const press = (key) => page.keyboard.press(key);
const ghost = () => page.evaluate(() => window.ghost.text);
const squeeze = (text) => text.replaceAll(/\s/g, '');

/** Waits for ghost text; '' where there is none in time. */
async function suggestion(ms = 4000) {
  await page.waitForFunction(() => window.ghost.text !== '', null, { timeout: ms, polling: 5 }).catch(() => {});
  await sleep(100); // its lines come one by one
  return ghost();
}
async function save(file) {
  await press('Control+s');
  await sleep(400);
  await page.waitForFunction(() => !document.querySelector('.tab.active.dirty')); // on a busy machine it takes longer
  return fs.readFileSync(file, 'utf8');
}
/** Makes `text` what `file`, which is in front, holds, the cursor at its end. Pasted, for typing would indent it once more. */
async function replace(file, text) {
  await page.evaluate((it) => navigator.clipboard.writeText(it), text);
  for (let tries = 0; ; tries++) {
    await press('Escape');
    await press('Control+a');
    await press('Control+v');
    await sleep(100 + 200 * tries);
    await press('Control+End');
    const held = await save(file);
    if (held === text) return;
    assert(tries < 5, `the text can't be replaced: ${JSON.stringify(held)}`);
  }
}
/** Changes settings while the editor runs, by hand: code-server doesn't watch the files. */
async function change(which, values) {
  await press('F1');
  await page.keyboard.type(`Open ${which} Settings (JSON)`);
  await sleep(700);
  await press('Enter');
  await page.waitForSelector('.tab.active[data-resource-name="settings.json"]');
  await sleep(700);
  await replace(`${run}/data/${which === 'User' ? 'User' : 'Machine'}/settings.json`, JSON.stringify(values));
  await press('Control+w');
  await page.waitForSelector('.tab.active[data-resource-name="store.py"]');
  await sleep(500);
}
const settings = (more) => change('User', { ...SETTINGS, ...more });
/** Puts `before` there, all but its last character, and types that; returns the ghost text. The server is asked twice: after the paste too. */
async function suggest(before, ms) {
  await replace(path, before.slice(0, -1));
  await page.keyboard.type(before.slice(-1));
  return suggestion(ms);
}

try {
  await page.route((url) => /^http/.test(url.protocol) && url.hostname !== '127.0.0.1', (route) => route.abort());
  const open = JSON.stringify([['openFile', `vscode-remote://127.0.0.1:${port}${path}`]]);
  const opened = Date.now();
  await page.goto(`http://127.0.0.1:${port}/?folder=${encodeURIComponent(`${run}/project`)}&payload=${encodeURIComponent(open)}`);
  await page.waitForSelector('.monaco-editor .view-line', { timeout: 90000 });
  await page.evaluate(() => {
    window.ghost = { key: 0, at: 0, text: '' }; // the last key's time, the ghost text, and the time it came
    document.addEventListener('keydown', () => { window.ghost.key = performance.now(); }, true);
    const read = () => {
      const parts = (of) => [...document.querySelectorAll(of)].map((part) => part.textContent.replaceAll('\u00a0', ' '));
      const text = [parts('.ghost-text-decoration').join(''), ...parts('.ghost-text')].join('\n').trimEnd(); // first line, the others
      if (text && !window.ghost.text) window.ghost.at = performance.now();
      window.ghost.text = text;
    };
    new MutationObserver(read).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.click('.monaco-editor .view-lines');

  let start, shown = '';
  for (let tries = -3; !shown && tries < STARTS.length; tries++) { // nothing is asked before the server is ready
    start = STARTS[Math.max(0, tries)];
    shown = await suggest(SOURCE + start);
    if (!shown) console.log(`nothing shown after '${start}'`);
  }
  assert(shown, 'no ghost text after any of the beginnings');
  console.log(`first ghost text ${Date.now() - opened} ms after opening the page; after '${start}': ${JSON.stringify(shown)}`);
  await sleep(500);
  await page.screenshot({ path: `${process.env.SHOTS}/ghost.png` });
  console.log(await page.evaluate(() => [...document.querySelectorAll('.view-lines .view-line')]
    .sort((a, b) => parseInt(a.style.top) - parseInt(b.style.top)).map((line) => line.textContent.replaceAll('\u00a0', ' ')).join('\n')));

  await press('Tab');
  const text = await save(path);
  assert(text.startsWith(SOURCE + start), `the text before the cursor changed: ${JSON.stringify(text.slice(-100))}`);
  assert.equal(squeeze(text.slice((SOURCE + start).length)), squeeze(shown));
  console.log(`ok: Tab inserted what was shown: ${JSON.stringify(text.slice((SOURCE + start).length))}`);

  // Read in other pieces, int8 rounds a little differently, and where two lengths are worth the same the other may win.
  const again = await suggest(SOURCE + start);
  assert(again && (again.startsWith(shown) || shown.startsWith(again)), `${shown} first, then ${again}`);
  shown = again;
  console.log('ok: the same text brings the same ghost text');
  await press('Alt+]');
  await sleep(600);
  console.log(`the next suggestion: ${JSON.stringify(await ghost())}`);
  await press('Alt+[');
  await sleep(600);
  assert.equal(await ghost(), shown);
  console.log('ok: back to the first one');

  await replace(path, SOURCE);
  await page.keyboard.type('print(os.path.join(se', { delay: 30 });
  const inside = await suggestion(1500);
  await press('Tab');
  console.log(`before an auto-closed '))': ${JSON.stringify(inside)}; after Tab the line is ${JSON.stringify((await save(path)).split('\n').slice(15).join('\n'))}`);

  console.log(`the picture shows ${JSON.stringify(await suggest(PICTURE))}`);
  await sleep(500);
  await page.screenshot({ path: `${process.env.SHOTS}/picture.png` });

  await settings({ 'lspCharrnn.disabledLanguages': ['python'] });
  assert.equal(await suggest(SOURCE + start, 1500), '');
  await settings();
  assert.equal(await suggest(SOURCE + start), shown);
  console.log('ok: lspCharrnn.disabledLanguages works at once, both ways');

  await change('Remote', { 'lspCharrnn.command': ['/no/such/program', 'serve'] });
  const notice = page.locator('.notification-toast').filter({ hasText: 'lspCharrnn.command' });
  await notice.waitFor({ timeout: 10000 });
  console.log(`a command that isn't there: "${(await notice.locator('.notification-list-item-message').innerText()).trim()}"`);
  await page.screenshot({ path: `${process.env.SHOTS}/no-server.png` });
  assert.equal(await page.locator('.notification-toast').count(), 1);
  await change('Remote', { 'lspCharrnn.command': command });
  await sleep(3000); // the server starts
  assert.equal(await suggest(SOURCE + start), shown);
  console.log('ok: another command takes effect at once');

  await settings({ 'editor.autoClosingBrackets': 'never', 'editor.autoClosingQuotes': 'never', 'editor.autoIndent': 'none' });
  await replace(path, SOURCE);
  const times = [];
  let asked = 0;
  for (const key of CODE) {
    if (times.length === KEYS) break;
    await press('Escape');
    await page.waitForFunction(() => window.ghost.text === '');
    await (key === '\n' ? press('Enter') : page.keyboard.type(key));
    if (/\s/.test(key)) continue;
    asked++;
    if (await suggestion(700)) times.push(await page.evaluate(() => Math.round(window.ghost.at - window.ghost.key)));
  }
  assert(times.length > 0, 'no key of the code brought ghost text');
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.floor(share * (times.length - 1))];
  console.log(`ghost text at ${times.length} of ${asked} keys; key -> ghost ms (about 60 of it VS Code's debounce): ` +
    `median ${at(0.5)}, p95 ${at(0.95)}, from ${times[0]} to ${times.at(-1)}`);
} catch (error) {
  await page.screenshot({ path: `${process.env.SHOTS}/failed.png` });
  throw error;
} finally {
  await browser.close();
}
