// "Pick a model": one of those that the server's own command line lists.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { window } from 'vscode';
import { otherCommand, type Server } from './discovery';
import { change } from './settings';

const AUTOMATIC = { label: 'Automatic', description: "the project's own if it has one, else by the document's language", path: '' };

/** Lets the user choose, and sets it; it takes effect with the next key. */
export async function pickModel(server: Server | undefined, cwd: string): Promise<void> {
  const choices = models(server, cwd).then((found) => [AUTOMATIC, ...found]);
  const pick = await window.showQuickPick(choices, { title: 'Pick a model' });
  if (pick) await change('model', pick.path);
}

async function models(server: Server | undefined, cwd: string) {
  const args = server && otherCommand(server, 'models', 'list', '--json');
  if (!args) return [];
  try {
    const { stdout } = await promisify(execFile)(server.program, args, { cwd });
    const found: { name: string; path: string; languages: string[]; problem: string; project: string | null }[] = JSON.parse(stdout);
    const free = found.filter(({ project }) => project === null); // a project's own is used there, and only there
    return free.map(({ name, path, languages, problem }) => ({ label: name, description: problem || languages.join(', '), detail: path, path }));
  } catch (error) {
    void window.showErrorMessage(`lsp-charrnn: its models can't be listed: ${(error as Error).message}`);
    return [];
  }
}
