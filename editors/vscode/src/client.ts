// The connection to the server: found, started, asked. Ghost text is vscode-languageclient's; all behaviour is the server's.
import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, type ExtensionContext, type LogOutputChannel, type Range, type TextDocument, window } from 'vscode';
import { CloseAction, ExecuteCommandRequest, LanguageClient, type Middleware, State } from 'vscode-languageclient/node';
import type { Connection, Status } from './describe';
import type { Server } from './discovery';
import { SECTION, serverSettings } from './settings';

const ON_LANGUAGE = 'onLanguage:'; // what package.json's activationEvents begin with: the languages that are served
const SCHEMES = ['file', 'untitled'];
const SETTLED = 100; // ms after the server was given the settings that it has asked for

export class Client {
  private readonly emitter = new EventEmitter<void>();
  readonly onDidChange = this.emitter.event; // of the connection, and of the settings that the server has
  connection: Connection = 'starting';
  server: Server | undefined;
  private readonly languages: readonly string[];
  private client: LanguageClient | undefined;
  private child: ChildProcess | undefined;
  private problem = '';
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly context: ExtensionContext,
    private readonly log: LogOutputChannel,
    private readonly find: () => Promise<Server | undefined>,
    private readonly showProgress: NonNullable<Middleware['handleWorkDoneProgress']>,
  ) {
    context.subscriptions.push(this.emitter);
    const { activationEvents: events }: { activationEvents: string[] } = context.extension.packageJSON;
    this.languages = events.filter((event) => event.startsWith(ON_LANGUAGE)).map((event) => event.slice(ON_LANGUAGE.length));
  }

  serves = (document: TextDocument): boolean => SCHEMES.includes(document.uri.scheme) && this.languages.includes(document.languageId);

  private readonly has = (document: TextDocument): boolean => !document.isClosed && this.serves(document);

  /** Finds the server and starts it, instead of the one that is running or is being started. */
  async restart(): Promise<void> {
    this.last = Promise.all([this.last, this.stop()]).then(() => this.stop()).then(() => this.start());
    await this.last;
  }

  async stop(): Promise<void> {
    const client = this.client;
    this.client = undefined; // before its end is heard of
    if (client?.state === State.Starting) this.child?.kill(); // it can't be asked yet, and may be fetching for minutes
    else if (client?.needsStop()) await client.stop().catch(() => undefined);
  }

  /** Returns what a command of the server returns; undefined where it fails, and the user is told. */
  async execute<T>(name: string, ...args: unknown[]): Promise<T | undefined> {
    const client = this.client;
    if (!client || this.connection !== 'running') return void window.showWarningMessage('lsp-charrnn: the server is not running.');
    try {
      return await client.sendRequest(ExecuteCommandRequest.type, { command: `${SECTION}.${name}`, arguments: args });
    } catch (error) {
      if (client === this.client && this.connection === 'running') void window.showErrorMessage(`lsp-charrnn: ${(error as Error).message}`);
      return undefined;
    }
  }

  /** Returns what the server is doing, and what it does with `document`; undefined where there is none that answers. */
  async status(document: TextDocument | undefined): Promise<Status | undefined> {
    if (this.connection !== 'running') return undefined;
    const asked = document && this.has(document) ? [document.uri.toString()] : [];
    const params = { command: `${SECTION}.status`, arguments: asked };
    return this.client?.sendRequest(ExecuteCommandRequest.type, params).catch(() => undefined); // as of a document just closed
  }

  /** Returns what the model does in `range`, or what is wrong with `wish`; nothing where there is nobody to ask, or an edit has overtaken it. */
  async inside(document: TextDocument, range: Range | undefined, wish: object): Promise<object | null | undefined> {
    const client = this.client;
    if (!client || !range || this.connection !== 'running' || !this.has(document)) return undefined;
    const params = { textDocument: { uri: document.uri.toString() }, range: client.code2ProtocolConverter.asRange(range), ...wish };
    return client.sendRequest<object | null>(`${SECTION}/inside`, params).catch(({ message }: Error) => ({ problem: message }));
  }

  private async start(): Promise<void> {
    this.become('starting');
    const server = (this.server = await this.find());
    if (!server) return this.become('missing');
    this.log.info(`${[server.program, ...server.args].join(' ')} (${server.from})`);
    const client = (this.client = new LanguageClient(SECTION, 'lsp-charrnn', () => this.spawn(server), {
      documentSelector: SCHEMES.flatMap((scheme) => this.languages.map((language) => ({ scheme, language }))),
      initializationOptions: serverSettings,
      outputChannel: this.log,
      initializationFailedHandler: () => false, // `become` tells of it
      middleware: {
        handleWorkDoneProgress: this.showProgress,
        workspace: {
          configuration: (params, token, next) => {
            // What it does may be something else, then. It has taken them up by when it has answered a first question.
            setTimeout(() => void this.status(undefined).then(() => this.emitter.fire()), SETTLED);
            return next(params, token);
          },
        },
      },
    }));
    const write = client.error.bind(client);
    client.error = (message, data) => write(message, data, false); // to the log: it would show three messages for one failure
    const usual = client.createDefaultErrorHandler();
    client.clientOptions.errorHandler = {
      error: (...all) => usual.error(...all),
      // Only one that has run is started again by itself.
      closed: () => (this.client === client && this.connection === 'running' ? usual.closed() : { action: CloseAction.DoNotRestart, handled: true }),
    };
    client.onDidChangeState(({ newState }) => {
      if (this.client === client) this.become(newState === State.Running ? 'running' : newState === State.Starting ? 'starting' : 'failed');
    });
    this.problem = 'the server has ended at once, or too often. The log says why.';
    await client.start().catch(() => undefined);
  }

  private become(connection: Connection): void {
    if (connection === 'failed' && this.connection !== 'failed') {
      void window.showErrorMessage(`lsp-charrnn: ${this.problem}`, 'Open the Log').then((button) => button && this.log.show());
    }
    this.connection = connection;
    this.emitter.fire();
  }

  /** Runs outside the folder that is open, so that nothing in there can pass for the server or for one of its modules. */
  private spawn({ program, args }: Server): Promise<ChildProcess> {
    return new Promise((resolve, reject) => {
      const child = (this.child = spawn(program, args, { cwd: this.context.extensionPath }));
      child.once('spawn', () => resolve(child));
      child.once('error', ({ message }) => {
        this.problem = `can't run '${program}' (${message}): install lsp-charrnn so that it is on PATH, or correct ${SECTION}.command.`;
        reject(this.problem);
      });
    });
  }
}
