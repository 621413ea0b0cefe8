// A page of an origin that nobody configured tries what it can: node foreign_pages.mjs FACTS
import assert from 'node:assert/strict';
import { decide, launch, logIn } from './browser.mjs';

const facts = JSON.parse(process.argv[2]);
const browser = await launch();
try {
  // The operator has both open, in one browser.
  const context = await browser.newContext();
  const inbox = await context.newPage();
  await logIn(inbox, facts.gateway, facts.operator, facts.password);
  await inbox.goto(`${facts.gateway}/console/consent`);

  const foreign = await context.newPage();
  const answers = [];
  foreign.on('response', (answer) => {
    if (answer.url().includes('/api/v1/')) answers.push({ request: `${answer.request().method()} ${answer.url()}`, status: answer.status() });
  });
  await foreign.goto(facts.foreign_page);
  // The second gateway takes whoever sends no credentials for a caller of its own; not so pages.
  for (const gateway of [facts.gateway, facts.open_gateway]) {
    const outcomes = await foreign.evaluate(attempts, [`${gateway}/api/v1`, facts.api_key]);
    for (const [what, outcome] of Object.entries(outcomes)) assert.ok(['TypeError', 'opaque'].includes(outcome), `${what}: ${outcome}`);
    assert.equal(outcomes.plain, 'opaque', 'a POST of text/plain reaches the gateway without a preflight');
    // A field that makes JSON of text/plain.
    assert.equal(await submitForm(foreign, `${gateway}/api/v1/accessToken`, 'text/plain', { '{"accessTimesNumber":1,"metaData":"': '"}' }), 403);
    await foreign.goto(facts.foreign_page);
  }
  for (const { request, status } of answers) assert.equal(status, 403, request);
  // What the browser sends without a preflight did come to the gateway; of the rest the tests see as little as the page.
  const came = new Set(answers.map(({ request }) => request));
  const simple = ['accessToken', 'ticket'].flatMap((path) => [facts.gateway, facts.open_gateway].map((gateway) => `POST ${gateway}/api/v1/${path}`));
  assert.deepEqual([...came].sort(), simple.sort());

  // A request of the page at home is the only one that the operator sees, and the foreign page cannot decide it.
  const home = await browser.newPage();
  await home.goto(facts.page);
  const asked = home.evaluate(async (gateway) => {
    const { Gateway } = await import('/gateway.js');
    return new Gateway(gateway).ask(1, 'mine').catch((error) => error.status);
  }, facts.gateway);
  // What else fails goes first.
  asked.catch(() => {});
  const card = inbox.locator('article.ask');
  await card.waitFor();
  assert.equal(await card.count(), 1);
  const allow = new URL(await card.locator('form').getAttribute('action'), facts.gateway).href;
  const token = await card.locator('input[name=token]').inputValue();
  // The session's cookie does not come along; with it, the form would be refused as well.
  assert.ok([401, 403].includes(await submitForm(foreign, allow, 'application/x-www-form-urlencoded', { token, uses: '1' })));
  await inbox.reload();
  await decide(inbox, card, 'Refuse');
  assert.equal(await asked, 403);
} finally {
  await browser.close();
}

/** Runs in the foreign page. */
async function attempts([api, apiKey]) {
  const attempt = (path, request) => fetch(`${api}/${path}`, request).then((answer) => (answer.type === 'opaque' ? 'opaque' : answer.status), (error) => error.name);
  const ask = JSON.stringify({ accessTimesNumber: 5, metaData: 'foreign' });
  const json = { 'Content-Type': 'application/json' };
  return {
    read: await attempt('token/connected', {}),
    status: await attempt('status', {}),
    ask: await attempt('accessToken', { method: 'POST', headers: json, body: ask }),
    // The browser sends these without asking the gateway first.
    simple: await attempt('accessToken', { method: 'POST', body: ask }),
    plain: await attempt('accessToken', { method: 'POST', mode: 'no-cors', headers: { 'Content-Type': 'text/plain' }, body: ask }),
    beacon: navigator.sendBeacon(`${api}/accessToken`, ask) ? 'opaque' : 'TypeError',
    ticket: await attempt('ticket', { method: 'POST', mode: 'no-cors' }),
    // Somebody's key does not help a page of the wrong origin.
    key: await attempt('ticket', { method: 'POST', headers: { Authorization: `Bearer ${apiKey}` } }),
  };
}

/** Has the page send a form, and gives back the status of the answer. */
async function submitForm(page, action, enctype, fields) {
  const [answer] = await Promise.all([
    page.waitForResponse(action),
    page.waitForEvent('load'),
    page.evaluate(({ action, enctype, fields }) => {
      const form = document.createElement('form');
      Object.assign(form, { method: 'post', enctype, action });
      for (const [name, value] of Object.entries(fields)) {
        const field = document.createElement('input');
        Object.assign(field, { name, value });
        form.append(field);
      }
      document.body.append(form);
      form.submit();
    }, { action, enctype, fields }),
  ]);
  return answer.status();
}
