// The ticket API as a program uses it.

/** A caller of the gateway at `url` with this API key. */
export function caller(url, apiKey) {
  const send = async (method, path, body, type = 'application/json') => {
    const headers = { Authorization: `Bearer ${apiKey}` };
    if (body !== undefined) headers['Content-Type'] = type;
    const answer = await fetch(`${url}/api/v1${path}`, { method, headers, body });
    const text = await answer.text();
    return { status: answer.status, text, json: () => JSON.parse(text) };
  };
  const ticket = async (content, metadata) => {
    const { ticketUuid } = (await send('POST', '/ticket')).json();
    await send('POST', `/ticket/${ticketUuid}/data`, content, 'application/octet-stream');
    if (metadata !== undefined) await send('PUT', `/ticket/${ticketUuid}/metadata`, JSON.stringify({ metaData: metadata }));
    return `/ticket/${ticketUuid}`;
  };
  const sign = async (content) => {
    const path = await ticket(content);
    const started = await send('POST', `${path}/ds/creator`);
    if (started.status !== 200) throw new Error(`not signed: ${started.status} ${started.text}`);
    return send('GET', `${path}/ds/base64Data`);
  };
  return { send, ticket, sign };
}
