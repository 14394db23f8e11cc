// Bundles the extension, and puts the licences of all that is in the bundle beside it.
import { build } from 'esbuild';
import { copyFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';

const { metafile } = await build({
  entryPoints: ['src/extension.ts'],
  outfile: 'dist/extension.js',
  bundle: true,
  minify: true,
  platform: 'node',
  target: 'node20', // of VS Code 1.91
  external: ['vscode'],
  metafile: true,
});
const inputs = Object.keys(metafile.inputs);
const packages = new Set(inputs.flatMap((path) => path.match(/^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0] ?? []));
const notices = [...packages].sort().map((folder) => {
  const { name, version } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'));
  const files = readdirSync(folder).filter((file) => /^(licen[cs]e|thirdpartynotices)/i.test(file));
  if (files.length === 0) throw new Error(`${name} comes without a licence file`);
  return [`# ${name} ${version}`, ...files.map((file) => readFileSync(`${folder}/${file}`, 'utf8').trim())].join('\n\n');
});
writeFileSync('dist/NOTICES.txt', notices.join('\n\n') + '\n');
if (!existsSync('../../LICENSE')) throw new Error('LICENSE is missing at the top of the repository');
copyFileSync('../../LICENSE', 'LICENSE');
