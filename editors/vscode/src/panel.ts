// A page beside the editor that shows tables, and follows the cursor. It loads nothing, and runs its own script only.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Disposable, type TextEditor, ViewColumn, type WebviewPanel, window } from 'vscode';
import type { Section } from './describe';

const LOOKS = [150, 1500]; // ms after the cursor's last move: at once, and when what is around it has been read

export class Panel implements Disposable {
  private panel: WebviewPanel | undefined;
  private editor: TextEditor | undefined;
  private timers: NodeJS.Timeout[] = [];
  private readonly listening = [
    window.onDidChangeTextEditorSelection(({ textEditor }) => this.follow(textEditor)),
    window.onDidChangeActiveTextEditor((editor) => editor && this.follow(editor)),
  ];

  /** `page` is a file; `look` says what is to be shown of an editor, undefined where there is nobody to ask. */
  constructor(
    private readonly page: string,
    private readonly type: string,
    private readonly title: string,
    private readonly look: (editor: TextEditor | undefined) => Promise<Section[] | undefined>,
  ) {}

  show(): void {
    this.editor = window.activeTextEditor ?? this.editor;
    if (this.panel) return this.panel.reveal(undefined, true);
    const beside = { viewColumn: ViewColumn.Beside, preserveFocus: true };
    const panel = (this.panel = window.createWebviewPanel(this.type, this.title, beside, { enableScripts: true, localResourceRoots: [] }));
    panel.onDidDispose(() => (this.panel = undefined));
    panel.onDidChangeViewState(() => this.later());
    panel.webview.onDidReceiveMessage(() => this.update()); // that it is there
    panel.webview.html = readFileSync(this.page, 'utf8').replaceAll('NONCE', randomBytes(16).toString('base64'));
  }

  /** Shows what is so now. */
  async update(): Promise<void> {
    if (!this.panel?.visible) return;
    const sections = (await this.look(this.editor)) ?? [{ title: 'The server does not answer', rows: [] }];
    await this.panel?.webview.postMessage(sections);
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
