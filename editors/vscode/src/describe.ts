// What the server's `lspCharrnn.status` says, in a few words. VS Code has no part in this; what panels make of it is media/panel.js's.

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

const percent = (share: number): string => `${Math.round(100 * share)} %`;
