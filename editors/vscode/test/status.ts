// A status of the server, as tests want one.
import type { Status } from '../src/describe';

export const PROJECT = { root: '/home/me/project', ready: true, files: 1200, characters: 3_400_000 };
export const STATUS: Status = {
  state: 'ready',
  problem: null,
  enabled: true,
  models: [{ language: 'python', name: 'python', bytes: 3_420_000 }],
  projects: [PROJECT],
  trainings: [],
  statistics: { requests: 1000, shown: 200, accepted: 50, charactersSaved: 1234, latencyMs: { p50: 3.02, p95: 10.4, p99: null } },
  versions: { 'lsp-charrnn': '0.1.0' },
  pid: 7,
  off: null,
};
