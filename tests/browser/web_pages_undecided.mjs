// Nobody decides: node web_pages_undecided.mjs FACTS
import assert from 'node:assert/strict';
import { launch, logIn } from './browser.mjs';
import { askAndSign, ending, open } from './demo_page.mjs';

const facts = JSON.parse(process.argv[2]);
const REFUSED = 'Запит на використання ЕП відхилено користувачем.';

const browser = await launch();
try {
  const page = await (await browser.newContext({ locale: 'uk-UA' })).newPage();
  await open(page, facts.page, facts.gateway);
  const answered = page.waitForResponse((answer) => /\/accessToken$/.test(answer.url()) && answer.request().method() === 'POST');
  await askAndSign(page);
  const answer = await answered;
  assert.equal(answer.status(), 403);
  assert.deepEqual(await answer.json(), { message: REFUSED });
  assert.equal(await ending(page), REFUSED);
  const inbox = await browser.newPage();
  await logIn(inbox, facts.gateway, facts.operator, facts.password);
  await inbox.goto(`${facts.gateway}/console/consent`);
  await inbox.getByText('Nothing waits for you.').waitFor();
} finally {
  await browser.close();
}
