// "Train on this workspace": what is asked before, and one progress, with a button to cancel. How it ends, the server says.
import { ProgressLocation, Uri, window, workspace } from 'vscode';
import type { Middleware, ProgressToken } from 'vscode-languageclient/node';
import type { Client } from './client';

/** What the server's command takes; null: the server chooses. */
export type Wishes = { root?: string; minutes?: number | null; suffixes?: string[]; fresh?: boolean };

const TITLE = 'Training on '; // how the title of the server's progress begins
type Report = (message: string, percentage: number) => void;

export class Trainer {
  private expected: Report | undefined;
  private readonly shown = new Map<ProgressToken, Report>();

  /** `begun` is called when the server has one under way. */
  constructor(private readonly begun: () => void) {}

  /** Trains, and returns at its end. What isn't among `wishes` is asked for, or as the open file is. */
  async train(client: Client, wishes: Wishes): Promise<void> {
    const root = wishes.root ?? (await folder());
    if (root === undefined) return;
    const open = window.activeTextEditor?.document;
    const suffixes = wishes.suffixes ?? [(open && client.serves(open) && open.fileName.match(/\.\w+$/)?.[0]) || '.py'];
    const minutes = wishes.minutes === undefined ? await duration(suffixes) : wishes.minutes;
    if (minutes === undefined) return;
    const title = `lsp-charrnn: training on ${Uri.parse(root).path.split('/').filter(Boolean).at(-1) ?? root}`;
    await window.withProgress({ location: ProgressLocation.Notification, title, cancellable: true }, async (progress, cancelled) => {
      cancelled.onCancellationRequested(() => client.execute('cancelTraining', { root }));
      let reached = 0;
      this.expected = (message, percentage) => {
        progress.report({ message, increment: Math.max(0, percentage - reached) });
        reached = Math.max(reached, percentage);
      };
      await client.execute('train', { ...wishes, root, suffixes, minutes });
    });
  }

  /** Shows the server's progress of a training where its user has the button; any other goes its usual way, to the status bar. */
  readonly takeProgress: NonNullable<Middleware['handleWorkDoneProgress']> = (token, params, next) => {
    const begun = params.kind === 'begin' && params.title.startsWith(TITLE) ? this.expected : undefined;
    if (begun) this.shown.set(token, begun), this.begun();
    const report = this.shown.get(token);
    if (report && params.kind !== 'end') return report(params.message ?? '', params.percentage ?? 0);
    this.shown.delete(token);
    next(token, params);
  };
}

async function folder(): Promise<string | undefined> {
  const folders = workspace.workspaceFolders ?? [];
  if (folders.length === 0) void window.showInformationMessage('lsp-charrnn: open the folder to train on first.');
  const chosen = folders.length > 1 ? await window.showWorkspaceFolderPick({ placeHolder: 'The folder to train on' }) : folders[0];
  return chosen?.uri.toString();
}

/** Returns minutes; null: the server is to choose; undefined: nothing is to be done. */
async function duration(suffixes: string[]): Promise<number | null | undefined> {
  const given = await window.showInputBox({
    title: `Train on the ${suffixes.join(', ')} files of this workspace`,
    prompt: 'For how many minutes? Empty: chosen by how much text there is. It goes on in the background, and what is stopped can be gone on with.',
    validateInput: (text) => (text.trim() === '' || Number(text) > 0 ? undefined : 'A number of minutes, or nothing'),
  });
  return given === undefined ? undefined : given.trim() === '' ? null : Number(given);
}
