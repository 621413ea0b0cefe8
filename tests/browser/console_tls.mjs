// The console over TLS: node console_tls.mjs FACTS
import assert from 'node:assert/strict';
import { launch, logIn } from './browser.mjs';

const facts = JSON.parse(process.argv[2]);
const browser = await launch();
try {
  const context = await browser.newContext({ locale: 'en-GB', ignoreHTTPSErrors: true });
  const page = await context.newPage();
  await logIn(page, facts.gateway, facts.operator, facts.password);
  const [session] = (await context.cookies(`${facts.gateway}/console`)).filter(({ name }) => name.endsWith('session'));
  const { name, secure, httpOnly, sameSite, path } = session;
  assert.deepEqual({ name, secure, httpOnly, sameSite, path }, { name: '__Secure-sealgate-session', secure: true, httpOnly: true, sameSite: 'Strict', path: '/console' });
  assert.deepEqual(await context.cookies(facts.gateway.replace('https:', 'http:').concat('/console')), [], 'nothing goes in clear');

  // A request comes in over the stream of events, and is decided.
  await page.goto(`${facts.gateway}/console/consent`);
  const asked = context.request.post(`${facts.gateway}/api/v1/accessToken`, {
    headers: { Authorization: `Bearer ${facts.api_key}` },
    data: { accessTimesNumber: 1 },
  });
  await page.locator('article.ask').getByRole('button', { name: 'Allow' }).click();
  await page.getByText('Allowed.').waitFor();
  assert.equal((await asked).status(), 200);
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByText('You are logged out.').waitFor();
  assert.deepEqual((await context.cookies()).filter(({ name }) => name.endsWith('session')), []);
} finally {
  await browser.close();
}
