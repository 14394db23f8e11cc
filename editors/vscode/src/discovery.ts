// Where the server is. VS Code has no part in this: what is asked of it comes as `Surroundings`.
import { posix, win32 } from 'node:path';

export interface Server {
  readonly program: string;
  readonly args: readonly string[];
  readonly from: string; // where it was found, in words
}

export interface Surroundings {
  readonly platform: NodeJS.Platform;
  readonly path: string; // the environment's PATH
  readonly command: readonly string[]; // the setting; empty: to be found
  readonly storage: string; // this extension's own directory
  readonly untrusted: readonly string[]; // directories out of which nothing may be run
  python(): Promise<string | undefined>; // the interpreter that is selected
  isFile(path: string): boolean;
}

const NAME = 'lsp-charrnn';

/** The first of: what is set, what lies beside the selected Python, on PATH, where `install` puts it, what fetches it. */
export async function findServer(around: Surroundings): Promise<Server | undefined> {
  const [program, ...args] = around.command;
  if (program) return { program, args, from: 'the setting lspCharrnn.command' };
  const { dirname, join } = paths(around);
  const python = await around.python();
  const beside = python ? dirname(python) : undefined;
  const places: [string, string[]][] = [
    ['beside the selected Python', beside ? [beside, join(beside, 'Scripts')] : []],
    ['on PATH', onPath(around)],
    ['installed by this extension', [programs(around)]],
  ];
  for (const [from, directories] of places) {
    const found = find(around, NAME, directories);
    if (found) return { program: found, args: ['serve'], from };
  }
  for (const [name, before] of [['uvx', []], ['pipx', ['run']]] as const) {
    const found = find(around, name, onPath(around));
    if (found) return { program: found, args: [...before, NAME, 'serve'], from: `fetched by ${name}` };
  }
  return undefined;
}

/** The Python to make an environment with: the selected one, else that of PATH. */
export async function findPython(around: Surroundings): Promise<string | undefined> {
  const python = await around.python();
  return python ?? find(around, 'python3', onPath(around)) ?? find(around, 'python', onPath(around));
}

/** Where `install` makes the server's own environment, and where in there its programs are. */
export const environment = (around: Surroundings): string => paths(around).join(around.storage, 'server');
export const programs = (around: Surroundings): string =>
  paths(around).join(environment(around), around.platform === 'win32' ? 'Scripts' : 'bin');

/** The arguments of another of the server's commands; undefined where `serve` isn't among its own. */
export function otherCommand(server: Server, ...args: string[]): string[] | undefined {
  const at = server.args.lastIndexOf('serve');
  return at < 0 ? undefined : [...server.args.slice(0, at), ...args];
}

const paths = ({ platform }: Surroundings) => (platform === 'win32' ? win32 : posix);

/** PATH without what depends on the directory that one is in. */
const onPath = (around: Surroundings): string[] => around.path.split(paths(around).delimiter).filter(paths(around).isAbsolute);

function find(around: Surroundings, name: string, directories: readonly string[]): string | undefined {
  const { isAbsolute, join, relative, sep } = paths(around);
  const inside = (path: string, folder: string) => {
    const way = relative(folder, path);
    return !way.startsWith(`..${sep}`) && !isAbsolute(way);
  };
  const file = around.platform === 'win32' ? `${name}.exe` : name;
  return directories
    .map((directory) => join(directory, file))
    .find((path) => !around.untrusted.some((folder) => inside(path, folder)) && around.isFile(path));
}
