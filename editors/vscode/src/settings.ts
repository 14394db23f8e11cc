// The settings of this extension: those that are the server's are handed on as they are.
import { ConfigurationTarget, workspace } from 'vscode';

export const SECTION = 'lspCharrnn';

/** The program and the arguments that the user has named; empty: the server is to be found. No folder can set it. */
export const command = (): string[] => workspace.getConfiguration(SECTION).get<string[]>('command', []);

/** The server's settings, nested: the section without `command`, which is ours. */
export function serverSettings(): object {
  const { command: _, ...rest } = workspace.getConfiguration().get<Record<string, unknown>>(SECTION, {});
  return rest;
}

/** Whether the user has switched a language off. */
export const isOff = (language: string): boolean => off().some((one) => same(one, language));

/** Switches a language off, or on again, for good. */
export async function toggleLanguage(language: string): Promise<void> {
  const others = off().filter((one) => !same(one, language));
  await change('disabledLanguages', isOff(language) ? others : [...others, language]);
}

/** Changes a setting where it is set: in the folder's settings if they have it, else in the user's. */
export async function change(name: string, value: unknown): Promise<void> {
  const settings = workspace.getConfiguration(SECTION);
  const inFolder = settings.inspect(name)?.workspaceValue !== undefined;
  await settings.update(name, value, inFolder ? ConfigurationTarget.Workspace : ConfigurationTarget.Global);
}

const off = (): string[] => workspace.getConfiguration(SECTION).get<string[]>('disabledLanguages', []);
const same = (one: string, other: string): boolean => one.toLowerCase() === other.toLowerCase();
