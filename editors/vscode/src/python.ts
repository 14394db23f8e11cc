// The Python interpreter that is selected: by the Python extension where it is installed, else by its setting.
import { homedir } from 'node:os';
import { isAbsolute } from 'node:path';
import { type Disposable, type Event, extensions, type Uri, workspace } from 'vscode';

/** As much of the Python extension's interface as is used. */
interface PythonApi {
  readonly environments: {
    getActiveEnvironmentPath(resource?: Uri): object;
    resolveEnvironment(path: object): Promise<{ readonly executable: { readonly uri: Uri | undefined } } | undefined>;
    readonly onDidChangeActiveEnvironmentPath: Event<unknown>;
  };
}

let listening: Disposable | undefined;

/**
 * Its path; `changed` is called when another one is selected in the Python extension. In a workspace that isn't trusted
 * it is the user's own setting, whatever the folder has selected.
 */
export async function selectedPython(changed: () => void): Promise<string | undefined> {
  const folder = workspace.workspaceFolders?.[0]?.uri;
  const set = workspace.getConfiguration('python', folder).inspect<string>('defaultInterpreterPath');
  if (!workspace.isTrusted) return expanded(set?.globalValue, undefined);
  const api = await extensions.getExtension<PythonApi>('ms-python.python')?.activate();
  if (!api) return expanded(set?.workspaceFolderValue ?? set?.workspaceValue ?? set?.globalValue, folder?.fsPath);
  listening ??= api.environments.onDidChangeActiveEnvironmentPath(changed);
  const found = await api.environments.resolveEnvironment(api.environments.getActiveEnvironmentPath(folder));
  return found?.executable.uri?.fsPath;
}

/** A path as the Python extension reads one in its setting; undefined where it is a name only, as "python" is. */
function expanded(path: string | undefined, folder: string | undefined): string | undefined {
  const whole = path?.replace(/^~(?=[/\\])/, () => homedir()).replaceAll('${workspaceFolder}', () => folder ?? '');
  return whole && isAbsolute(whole) ? whole : undefined;
}
