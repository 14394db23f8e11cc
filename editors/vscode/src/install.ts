// Installs the server into an environment of its own, in this extension's storage. Only ever when the user asks for it.
import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { commands, ProgressLocation, window, workspace } from 'vscode';
import { environment, findPython, programs, type Surroundings } from './discovery';

const MISSING = 'lsp-charrnn: its server is not installed';

/** Says that there is no server; the button installs it. Returns whether it has. */
export async function offerToInstall(around: Surroundings): Promise<boolean> {
  if (!workspace.isTrusted) return install(around);
  const text = `${MISSING}. pip can fetch it for this extension alone (about 200 MB). If you have it already, set lspCharrnn.command.`;
  return (await window.showInformationMessage(text, 'Install')) !== undefined && install(around);
}

/** Installs the latest one; says what went wrong, and returns whether it worked. Never with what an untrusted folder may have chosen. */
export async function install(around: Surroundings): Promise<boolean> {
  if (!workspace.isTrusted) {
    const text = `${MISSING}, and nothing is installed while a folder is open that is not trusted.`;
    if (await window.showWarningMessage(text, 'Manage Trust')) await commands.executeCommand('workbench.trust.manage');
    return false;
  }
  const options = { location: ProgressLocation.Notification, title: 'Installing lsp-charrnn', cancellable: true };
  return window.withProgress(options, async (progress, cancelled) => {
    const abort = new AbortController();
    cancelled.onCancellationRequested(() => abort.abort());
    const run = (program: string, ...args: string[]) =>
      promisify(execFile)(program, args, { cwd: around.storage, signal: abort.signal, maxBuffer: 1 << 26 });
    try {
      const python = await findPython(around);
      if (!python) throw new Error('there is no Python: install 3.10 or newer.');
      await mkdir(around.storage, { recursive: true });
      progress.report({ message: 'making an environment' });
      await run(python, '-m', 'venv', '--clear', environment(around));
      progress.report({ message: 'fetching the server and what it needs' });
      await run(`${programs(around)}/python`, '-m', 'pip', 'install', '--disable-pip-version-check', 'lsp-charrnn');
      return true;
    } catch (error) {
      const { stderr, stdout, message } = error as { stderr?: string; stdout?: string; message: string };
      const said = (stderr?.trim() || stdout?.trim() || message).split('\n').at(-1); // a program's last line says why
      if (!abort.signal.aborted) void window.showErrorMessage(`lsp-charrnn can't be installed: ${said}`);
      return false;
    }
  });
}
