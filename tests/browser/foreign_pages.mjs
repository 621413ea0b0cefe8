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
  const statuses = new Map();
  foreign.on('response', (answer) => {
    if (answer.url().includes('/api/v1/')) statuses.set(`${answer.request().method()} ${answer.url()}`, answer.status());
  });
  await foreign.goto(facts.foreign_page);
  // The second gateway takes whoever sends no credentials for a caller of its own; not so pages.
  for (const gateway of [facts.gateway, facts.open_gateway]) {
    const outcomes = await foreign.evaluate(attempts, [`${gateway}/api/v1`, facts.api_key]);
    for (const [what, outcome] of Object.entries(outcomes)) assert.ok(['TypeError', 'opaque'].includes(outcome), `${what}: ${outcome}`);
    assert.equal(outcomes.plain, 'opaque', 'a POST of text/plain reaches the gateway without a preflight');
    await submitForm(foreign, `${gateway}/api/v1/accessToken`);
    await foreign.goto(facts.foreign_page);
  }
  assert.ok(statuses.size >= 8, [...statuses.keys()].join());
  for (const [request, status] of statuses) assert.equal(status, 403, request);

  // A request of the page at home is the only one that the operator sees, and the foreign page cannot decide it.
  const home = await browser.newPage();
  await home.goto(facts.page);
  const asked = home.evaluate(async (gateway) => {
    const { Gateway } = await import('/gateway.js');
    return new Gateway(gateway).ask(1, 'mine').catch((error) => error.status);
  }, facts.gateway);
  const card = inbox.locator('article.ask');
  await card.waitFor();
  assert.equal(await card.count(), 1);
  const allow = new URL(await card.locator('form').getAttribute('action'), facts.gateway).href;
  const token = await card.locator('input[name=token]').inputValue();
  const decided = foreign.waitForResponse(allow);
  await foreign.evaluate(([url, body]) => fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams(body) }), [allow, { token, uses: '1' }]);
  // Its session's cookie does not come along, and with it, it would be refused as well.
  assert.ok([401, 403].includes((await decided).status()));
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

/** A form whose only field makes JSON of text/plain. */
async function submitForm(page, action) {
  const [answer] = await Promise.all([
    page.waitForResponse(action),
    page.waitForEvent('load'),
    page.evaluate((url) => {
      const form = document.createElement('form');
      Object.assign(form, { method: 'post', enctype: 'text/plain', action: url });
      const field = document.createElement('input');
      Object.assign(field, { name: '{"accessTimesNumber":1,"metaData":"', value: '"}' });
      form.append(field);
      document.body.append(form);
      form.submit();
    }, action),
  ]);
  assert.equal(answer.status(), 403);
}
