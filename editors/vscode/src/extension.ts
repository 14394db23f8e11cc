// What begins when VS Code opens a file of code: the server is found and started, the status bar and the commands are there.
import { existsSync, statSync } from 'node:fs';
import { commands, type ExtensionContext, window, workspace } from 'vscode';
import { Client } from './client';
import { findServer, type Surroundings } from './discovery';
import { install, offerToInstall } from './install';
import { pickModel } from './models';
import { inSight, Panel } from './panel';
import { selectedPython } from './python';
import { command, SECTION, toggleLanguage } from './settings';
import { StatusBar } from './status';
import { Trainer, type Wishes } from './train';

let client: Client | undefined;

export function activate(context: ExtensionContext): void {
  const log = window.createOutputChannel('lsp-charrnn', { log: true });
  const surroundings = (): Surroundings => ({
    platform: process.platform,
    path: process.env['PATH'] ?? '',
    command: command(),
    storage: context.globalStorageUri.fsPath,
    untrusted: workspace.isTrusted ? [] : (workspace.workspaceFolders ?? []).map(({ uri }) => uri.fsPath),
    python: () => selectedPython(() => void started.restart()).catch((error: Error) => (log.error(error), undefined)),
    isFile: (path) => existsSync(path) && statSync(path).isFile(),
  });
  const trainer = new Trainer(() => void status.update());
  const started: Client = (client = new Client(context, log, () => findServer(surroundings()), trainer.takeProgress));
  const status = new StatusBar(started);
  const page = context.asAbsolutePath('media/panel.html');
  const counts = new Panel(page, `${SECTION}.statistics`, 'lsp-charrnn: statistics', async () => ({ status: await started.status(undefined) }));
  const explorer = new Panel(page, `${SECTION}.explorer`, 'lsp-charrnn: explorer', async (editor, wish) => {
    if (!editor) return { empty: 'Open a file of code to see what the server makes of it' };
    const { document, selection: { active: cursor } } = editor;
    const [status, inside] = await Promise.all([started.status(document), started.inside(document, inSight(editor), wish)]);
    return { status, inside, path: workspace.asRelativePath(document.uri), language: document.languageId, cursor };
  });
  let offered = false;

  const on = (name: string, run: (...args: never[]) => unknown) => commands.registerCommand(`${SECTION}.${name}`, async (...args: never[]) => {
    await run(...args);
    await Promise.all([status.update(), counts.update(), explorer.update()]);
  });
  context.subscriptions.push(
    log, status, counts, explorer,
    started.onDidChange(() => {
      if (started.connection !== 'missing' || offered) return;
      offered = true;
      void offerToInstall(surroundings()).then((done) => done ? started.restart() : undefined);
    }),
    workspace.onDidChangeConfiguration((event) => event.affectsConfiguration(`${SECTION}.command`) && started.restart()),
    workspace.onDidGrantWorkspaceTrust(() => {
      offered = false; // now it can be installed
      void started.restart();
    }),
    on('menu', () => status.menu()),
    on('toggleHere', () => started.execute('toggle')),
    on('toggleLanguage', () => window.activeTextEditor && toggleLanguage(window.activeTextEditor.document.languageId)),
    on('showStatistics', () => counts.show()),
    on('openExplorer', () => explorer.show()),
    on('pickModel', () => pickModel(started.server, context.extensionPath)),
    on('trainWorkspace', (wishes?: Wishes) => trainer.train(started, wishes ?? {})),
    on('stopTraining', () => started.execute('cancelTraining')),
    on('install', async () => (await install(surroundings())) && started.restart()),
    on('restart', () => started.restart()),
    on('openLog', () => log.show()),
  );
  void started.restart(); // not waited for: what VS Code waits for is over
}

export const deactivate = (): Promise<void> | undefined => client?.stop();
