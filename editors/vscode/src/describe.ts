// What the server's `lspCharrnn.status` says, in words. VS Code has no part in this.

/** The answer to `lspCharrnn.status`; the last four are there when it was asked about a document. */
export interface Status {
  state: 'off' | 'ready' | 'loading' | 'idle' | 'error';
  problem: string | null;
  enabled: boolean;
  models: { language: string; name: string; bytes: number }[];
  projects: { root: string; ready: boolean; files: number; characters: number }[];
  trainings: { root: string; phase: string; share: number }[];
  statistics: { requests: number; shown: number; accepted: number; charactersSaved: number; latencyMs: Record<string, number | null> };
  versions: Record<string, string>;
  pid: number;
  off?: string | null;
  refined?: boolean;
  settled?: boolean;
  remembered?: boolean;
}

/** How far it is from here to a server that answers. */
export type Connection = 'missing' | 'starting' | 'running' | 'failed';

export interface Standing {
  kind: 'ready' | 'loading' | 'indexing' | 'training' | 'off' | 'error';
  text: string; // a word or two
  detail: string; // a sentence
}

/** A table: its rows' names and values. */
export type Section = { title: string; rows: [string, string][] };

/** What the status bar shows; `document`: the one in front, if it is one that the server has. */
export function standing(connection: Connection, status: Status | undefined, document?: { languageId: string; served: boolean }): Standing {
  const is = (kind: Standing['kind'], text: string, detail: string) => ({ kind, text, detail });
  if (connection === 'missing') return is('error', 'not installed', 'The server lsp-charrnn is not installed.');
  if (connection === 'failed') return is('error', 'error', 'The server does not run: the log says why.');
  if (connection === 'starting' || !status) return is('loading', 'starting', 'The server is starting.');
  if (status.state === 'error') return is('error', 'error', status.problem ?? 'No model can be had.');
  const [training] = status.trainings;
  if (training) return is('training', `training ${percent(training.share)}`, `A model is being trained on ${training.root} (${training.phase}).`);
  if (!status.enabled) return is('off', 'off', 'Switched off in this window.');
  const language = document?.languageId;
  if (document && !document.served) return is('off', `off for ${language}`, `Nothing is suggested in ${language}.`);
  if (document && status.off) return is('off', `off for ${language}`, `Off: ${status.off}.`);
  if (status.state === 'loading') return is('loading', 'loading', 'The model is being loaded.');
  const reading = status.projects.find((project) => !project.ready);
  if (reading) return is('indexing', 'indexing', `The names in ${reading.root} are being counted.`);
  return is('ready', 'ready', 'Suggestions come as you type.');
}

/** Whether it will be another one soon, without anything being done here. */
export const isUnderWay = ({ kind }: Standing): boolean => kind === 'loading' || kind === 'indexing' || kind === 'training';

export function statistics(status: Status): Section[] {
  const { requests, shown, accepted, charactersSaved, latencyMs } = status.statistics;
  const late = Object.entries(latencyMs).flatMap(([name, ms]) => (ms === null ? [] : [`${name} ${ms.toFixed(1)} ms`]));
  return [
    {
      title: 'Suggestions since the server was started',
      rows: [
        ['shown', number(shown)],
        ['accepted', shown ? `${number(accepted)} (${percent(accepted / shown)})` : number(accepted)],
        ['characters saved', number(charactersSaved)],
        ['requests answered', number(requests)],
        ['answered within', late.join(', ') || 'nothing was asked yet'],
      ],
    },
    { title: 'Models', rows: models(status) },
    { title: 'Memory of projects', rows: status.projects.map(project) },
    { title: 'Server', rows: [...Object.entries(status.versions), ['process', String(status.pid)]] },
  ];
}

/** What the server says of a document, and of the place in it, counted from 1. */
export function explanation(status: Status, path: string, language: string, line: number, column: number): Section[] {
  const known = (yes: boolean | undefined, done: string, open: string) => (yes === undefined ? 'not read' : yes ? done : open);
  return [
    {
      title: path,
      rows: [
        ['cursor', `line ${number(line)}, column ${number(column)}`],
        ['suggestions', status.off ? `off: ${status.off}` : `on, as ${language}`],
      ],
    },
    {
      title: 'What the model has read',
      rows: [
        ['before the cursor', known(status.refined, 'enough for its expectations to be final', 'too little still: its expectations are first ones')],
        ['around the cursor', known(status.settled, 'all of it', 'some of it')],
        ['names in the document', known(status.remembered, 'counted', 'being counted')],
      ],
    },
    { title: 'Model', rows: models({ ...status, models: status.models.filter((model) => model.language === language) }) },
    { title: 'Memory of projects', rows: status.projects.map(project) },
  ];
}

function models({ models: all }: Status): [string, string][] {
  return all.length ? all.map(({ language, name, bytes }) => [language, `${name}, ${(bytes / 1e6).toFixed(1)} MB`]) : [['none', 'nothing has been completed yet']];
}

function project({ root, ready, files, characters }: Status['projects'][number]): [string, string] {
  return [root, ready ? `${number(files)} ${files === 1 ? 'file' : 'files'}, ${number(characters)} characters` : 'being read'];
}

const number = (value: number): string => value.toLocaleString('en');
const percent = (share: number): string => `${Math.round(100 * share)} %`;
