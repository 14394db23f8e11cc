// A page beside the editor that follows the cursor and what is in sight. It loads nothing, and runs its own script only, which
// says what is shown and how (media/panel.js).
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Disposable, Range, type TextEditor, ViewColumn, type WebviewPanel, window } from 'vscode';

const LOOKS = [150, 1500]; // ms after the cursor's last move: at once, and when what is around it has been read
const MOST = 2500; // characters before the cursor that are seen: the server sees 4,096 bytes at once

export class Panel implements Disposable {
  private panel: WebviewPanel | undefined;
  private editor: TextEditor | undefined;
  private wish: object = {};
  private turn = 0;
  private timers: NodeJS.Timeout[] = [];
  private readonly listening = [
    window.onDidChangeTextEditorSelection(({ textEditor }) => this.follow(textEditor)),
    window.onDidChangeActiveTextEditor((editor) => editor && this.follow(editor)),
    window.onDidChangeTextEditorVisibleRanges(({ textEditor }) => textEditor === this.editor && this.later()),
  ];

  /** `page` is a file, with a script beside it; `look` says what is to be shown of an editor: `wish` is what the page asked for last. */
  constructor(
    private readonly page: string,
    private readonly type: string,
    private readonly title: string,
    private readonly look: (editor: TextEditor | undefined, wish: object) => Promise<object>,
  ) {}

  show(): void {
    this.editor = window.activeTextEditor ?? this.editor;
    if (this.panel) return this.panel.reveal(undefined, true);
    const beside = { viewColumn: ViewColumn.Beside, preserveFocus: true };
    const panel = (this.panel = window.createWebviewPanel(this.type, this.title, beside, { enableScripts: true, localResourceRoots: [] }));
    panel.onDidDispose(() => (this.panel = undefined));
    panel.onDidChangeViewState(() => this.later());
    panel.webview.onDidReceiveMessage((wish) => ((this.wish = wish), this.update()));
    const page = readFileSync(this.page, 'utf8').replaceAll('NONCE', randomBytes(16).toString('base64'));
    panel.webview.html = page.replace('SCRIPT', () => readFileSync(this.page.replace(/html$/, 'js'), 'utf8'));
  }

  /** Shows what is so now. */
  async update(): Promise<void> {
    if (!this.panel?.visible) return;
    const turn = ++this.turn;
    const seen = await this.look(this.editor, this.wish);
    if (turn === this.turn) await this.panel?.webview.postMessage(seen);
  }

  dispose(): void {
    this.panel?.dispose();
    for (const one of this.listening) one.dispose();
  }

  private follow(editor: TextEditor): void {
    if (editor.document.uri.scheme === 'output') return; // logs have cursors, too
    this.editor = editor;
    this.later();
  }

  private later(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers = this.panel?.visible ? LOOKS.map((ms) => setTimeout(() => void this.update(), ms)) : [];
  }
}

/** What is in sight of a document; where that is too much to be seen at once, so that the cursor is in it. */
export function inSight({ document, selection: { active }, visibleRanges: [first, ...others] }: TextEditor): Range | undefined {
  if (!first) return undefined;
  const all = others.reduce((one, other) => one.union(other), first);
  const near = document.positionAt(document.offsetAt(active) - MOST);
  return all.contains(active) && near.isAfter(all.start) ? new Range(near, all.end) : all;
}
