// A server that nobody should call, and that knows who did.
import { createServer } from 'node:http';

/** Starts it. */
export async function canary() {
  const calls = [];
  const waiting = [];
  const pages = new Map();
  const server = createServer((request, answer) => {
    const path = new URL(request.url, 'http://canary').pathname;
    calls.push(path);
    for (const { wanted, seen } of waiting) if (wanted === path) seen();
    answer.writeHead(200, { 'Content-Type': pages.has(path) ? 'text/html' : 'text/plain' });
    answer.end(pages.get(path) ?? 'called');
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url,
    calls,
    /** From now on this path is a page. */
    serve: (path, html) => pages.set(path, html),
    /** Ends when this path has been called. */
    called: (path) => new Promise((seen) => {
      if (calls.includes(path)) seen();
      else waiting.push({ wanted: path, seen });
    }),
    close: () => server.closeAllConnections() ?? server.close(),
  };
}
