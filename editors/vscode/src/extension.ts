// Starts `lsp-charrnn serve` and hands it the settings. Ghost text is vscode-languageclient's; all behaviour is the server's.
import { type ChildProcess, spawn } from 'node:child_process';
import { type ExtensionContext, type LogOutputChannel, window, workspace } from 'vscode';
import { DidChangeConfigurationNotification, LanguageClient } from 'vscode-languageclient/node';

const SECTION = 'lspCharrnn';
const ON_LANGUAGE = 'onLanguage:'; // what package.json's activationEvents begin with: the languages that are served
let client: LanguageClient | undefined;

export async function activate(context: ExtensionContext): Promise<void> {
  const log = window.createOutputChannel('lsp-charrnn', { log: true });
  context.subscriptions.push(
    log,
    workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration(`${SECTION}.command`)) await start(context, log);
    }),
  );
  await start(context, log);
}

export async function deactivate(): Promise<void> {
  if (client?.needsStop()) await client.stop();
}

async function start(context: ExtensionContext, log: LogOutputChannel): Promise<void> {
  await deactivate();
  const { activationEvents: events }: { activationEvents: string[] } = context.extension.packageJSON;
  const languages = events.filter((event) => event.startsWith(ON_LANGUAGE)).map((event) => event.slice(ON_LANGUAGE.length));
  const started: LanguageClient = new LanguageClient(SECTION, 'lsp-charrnn', () => server(context.extensionPath), {
    documentSelector: languages.flatMap((language) => [
      { scheme: 'file', language },
      { scheme: 'untitled', language },
    ]),
    initializationOptions: settings,
    synchronize: { configurationSection: SECTION },
    outputChannel: log,
    middleware: {
      workspace: {
        configuration: ({ items }) => items.map(({ section }) => (section === SECTION ? settings() : null)),
        didChangeConfiguration: () =>
          started.sendNotification(DidChangeConfigurationNotification.type, { settings: { [SECTION]: settings() } }),
      },
    },
  });
  client = started;
  await started.start().catch(() => undefined); // the client has shown why, in the words of `server`
}

/** The server's settings, nested: the section without `command`, which is ours. */
function settings(): object {
  const { command: _, ...rest } = workspace.getConfiguration().get<Record<string, unknown>>(SECTION, {});
  return rest;
}

/** Runs outside the folder that is open, so that nothing in there can pass for the server or for one of its modules. */
function server(cwd: string): Promise<ChildProcess> {
  const [program = '', ...args] = workspace.getConfiguration(SECTION).get<string[]>('command', []);
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd });
    child.once('spawn', () => resolve(child));
    child.once('error', ({ message }) =>
      reject(`Can't run '${program}' (${message}): install lsp-charrnn so that it is on PATH, or set ${SECTION}.command.`),
    );
  });
}
