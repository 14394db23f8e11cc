// The item in the status bar, and its menu.
import { commands, type Disposable, MarkdownString, StatusBarAlignment, ThemeColor, window } from 'vscode';
import type { Client } from './client';
import { isUnderWay, type Standing, standing, type Status } from './describe';
import { isOff, SECTION } from './settings';

const ICONS: Record<Standing['kind'], string> = {
  ready: 'sparkle', loading: 'loading~spin', indexing: 'book', training: 'beaker', off: 'circle-slash', error: 'error',
};
const SOONEST = 1000; // ms until it is asked again while something is under way; each time half as much longer
const LATEST = 30_000;

export class StatusBar implements Disposable {
  private readonly item = window.createStatusBarItem(`${SECTION}.status`, StatusBarAlignment.Right, 100);
  private readonly listening: Disposable[];
  private status: Status | undefined;
  private timer: NodeJS.Timeout | undefined;
  private asked = 0;

  constructor(private readonly client: Client) {
    this.item.name = 'lsp-charrnn';
    this.item.command = `${SECTION}.menu`;
    this.item.show();
    this.listening = [
      this.item,
      client.onDidChange(() => void this.update()),
      window.onDidChangeActiveTextEditor(() => void this.update()),
    ];
  }

  /** Asks the server and shows what it says; while something is under way, again and again. */
  async update(wait = SOONEST): Promise<void> {
    clearTimeout(this.timer);
    const asked = ++this.asked;
    const document = window.activeTextEditor?.document;
    const status = await this.client.status(document);
    if (asked !== this.asked) return; // something newer is being asked
    this.status = status;
    const { connection } = this.client;
    const now = standing(connection, status, document && { languageId: document.languageId, served: this.client.serves(document) });
    this.item.text = `$(${ICONS[now.kind]}) charrnn${now.kind === 'ready' ? '' : `: ${now.text}`}`;
    this.item.tooltip = new MarkdownString('**lsp-charrnn**\n\n').appendText(now.detail);
    this.item.accessibilityInformation = { label: `lsp-charrnn: ${now.detail}` };
    this.item.backgroundColor = now.kind === 'error' ? new ThemeColor('statusBarItem.errorBackground') : undefined;
    if (connection === 'running' && isUnderWay(now)) this.timer = setTimeout(() => void this.update(Math.min(1.5 * wait, LATEST)), wait);
  }

  async menu(): Promise<void> {
    await this.update();
    const document = window.activeTextEditor?.document;
    const language = document && this.client.serves(document) && document.languageId;
    const turn = (on: boolean, what: string) => (on ? `$(circle-slash) Turn off ${what}` : `$(check) Turn on ${what}`);
    const items = [
      this.client.connection === 'missing' && { label: '$(cloud-download) Install the server', command: 'install' },
      this.status && { label: turn(this.status.enabled, 'here'), description: 'in this window', command: 'toggleHere' },
      language && { label: turn(!isOff(language), `for ${language}`), description: 'in your settings', command: 'toggleLanguage' },
      this.status && { label: '$(graph) Show statistics', command: 'showStatistics' },
      this.status && { label: '$(eye) Open the explorer', command: 'openExplorer' },
      { label: '$(symbol-misc) Pick a model…', description: this.status?.models[0]?.name ?? '', command: 'pickModel' },
      this.status?.trainings.length === 0 && { label: '$(beaker) Train on this workspace…', command: 'trainWorkspace' },
      this.status?.trainings.length && { label: '$(stop-circle) Stop the training', command: 'stopTraining' },
      { label: '$(refresh) Restart the server', command: 'restart' },
      { label: '$(output) Open the log', command: 'openLog' },
    ].filter((item) => typeof item === 'object');
    const picked = await window.showQuickPick(items, { title: 'lsp-charrnn', placeHolder: this.item.accessibilityInformation?.label ?? '' });
    if (picked) await commands.executeCommand(`${SECTION}.${picked.command}`);
  }

  dispose(): void {
    clearTimeout(this.timer);
    for (const one of this.listening) one.dispose();
  }
}
