// A server of one's own, to ask what the editor's has said: by stdio, and nothing but a question.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Returns what the server says of `text`, opened as `file` in `folder`, by `lspCharrnn/inside`. */
export async function inside(program, folder, file, text, wanted) {
  const [name, ...args] = program;
  const child = spawn(name, [...args, 'serve', '--cache', join(folder, '..', 'cache-of-another')], { cwd: '/', stdio: ['pipe', 'pipe', 'ignore'] });
  let data = Buffer.alloc(0);
  const waiting = new Map();
  child.stdout.on('data', (more) => {
    data = Buffer.concat([data, more]);
    for (;;) {
      const end = data.indexOf('\r\n\r\n');
      const [, length] = data.subarray(0, Math.max(0, end)).toString().match(/Content-Length: (\d+)/) ?? [];
      if (length === undefined || data.length < end + 4 + Number(length)) return;
      const message = JSON.parse(data.subarray(end + 4, end + 4 + Number(length)));
      data = data.subarray(end + 4 + Number(length));
      if (message.method === undefined) waiting.get(message.id)?.(message);
    }
  });
  const send = (message) => {
    const body = Buffer.from(JSON.stringify({ jsonrpc: '2.0', ...message }));
    child.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
    child.stdin.write(body);
  };
  const ask = (id, method, params) => new Promise((resolve, reject) => {
    child.once('exit', () => reject(new Error('the server has ended')));
    waiting.set(id, ({ result, error }) => (error ? reject(new Error(error.message)) : resolve(result)));
    send({ id, method, params });
  });
  try {
    const rootUri = String(pathToFileURL(folder));
    await ask(1, 'initialize', { processId: null, rootUri, capabilities: {} });
    send({ method: 'initialized', params: {} });
    const uri = String(pathToFileURL(file));
    send({ method: 'textDocument/didOpen', params: { textDocument: { uri, languageId: 'python', version: 1, text } } });
    const lines = text.split('\n');
    const range = { start: { line: 0, character: 0 }, end: { line: lines.length - 1, character: lines.at(-1).length } };
    return await ask(2, 'lspCharrnn/inside', { textDocument: { uri }, range, ...wanted });
  } finally {
    child.kill();
  }
}
