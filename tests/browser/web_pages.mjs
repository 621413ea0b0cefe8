// A page asks, an operator decides, the page gets what they allowed: node web_pages.mjs FACTS
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { decide, launch, logIn } from './browser.mjs';
import { FILES, askAndSign, ending, open } from './demo_page.mjs';

const facts = JSON.parse(process.argv[2]);
const REFUSED = 'Запит на використання ЕП відхилено користувачем.';
const USED_UP = 'Дозвіл на використання ЕП вичерпано.';

let browser;
let folder;
/** The operator's inbox, and the page. */
let inbox;
let page;

before(async () => {
  browser = await launch();
  folder = await mkdtemp(join(tmpdir(), 'sealgate-pages-'));
  inbox = await (await browser.newContext({ locale: 'en-GB' })).newPage();
  await logIn(inbox, facts.gateway, facts.operator, facts.password);
  await inbox.goto(`${facts.gateway}/console/consent`);
  page = await (await browser.newContext({ locale: 'uk-UA' })).newPage();
  await open(page, facts.page, facts.gateway);
});

after(async () => {
  await browser.close();
  await rm(folder, { recursive: true });
});

/** The request that came in, on the page that was there before it. */
async function request() {
  await inbox.evaluate(() => { window.wasThereBefore = true; });
  const asked = page.waitForRequest(/\/accessToken$/);
  await askAndSign(page);
  await asked;
  const card = inbox.locator('article.ask');
  await card.waitFor();
  assert.equal(await inbox.evaluate(() => window.wasThereBefore), true, 'the inbox was not loaded anew');
  return card;
}

/** The gateway's next answer to a request for a permission. */
async function decision() {
  const answer = await page.waitForResponse((answer) => /\/accessToken$/.test(answer.url()) && answer.request().method() === 'POST');
  return { status: answer.status(), body: await answer.json() };
}

async function downloaded(name) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name }).click()]);
  const path = join(folder, name);
  await download.saveAs(path);
  return path;
}

test('the operator allows two signatures, and OpenSSL verifies both', async () => {
  const card = await request();
  assert.match(await inbox.title(), /^\(1\) /);
  const text = await card.innerText();
  assert.ok(text.includes('page asks for up to 2 signatures') && text.includes(facts.page), text);
  const words = inbox.frameLocator('.words iframe').locator('body');
  await words.getByText('contract.txt, 13 bytes').waitFor();
  const decided = decision();
  await decide(inbox, card, 'Allow');
  const { status, body } = await decided;
  assert.equal(status, 200);
  assert.equal(body.message, 'Запит на використання ЕП успішно оброблений. Кількість спроб: 2.');
  assert.equal(await ending(page), '2 of 2 signed.');
  for (const { name, buffer } of FILES) {
    const signature = await downloaded(`${name}.p7s`);
    const content = join(folder, name);
    await writeFile(content, buffer);
    execFileSync('openssl', ['cms', '-verify', '-binary', '-inform', 'DER', '-in', signature, '-content', content, '-CAfile', facts.ca, '-out', '/dev/null'], { stdio: 'pipe' });
  }
});

test('a third signature is refused with 403', async () => {
  const asked = page.evaluate(async (gateway) => {
    const { Gateway } = await import('/gateway.js');
    window.gateway = new Gateway(gateway);
    window.permission = await window.gateway.ask(2, 'two signatures');
  }, facts.gateway);
  await decide(inbox, inbox.locator('article.ask'), 'Allow');
  await asked;
  const signed = await page.evaluate(async () => {
    const outcomes = [];
    for (const text of ['one', 'two', 'three']) {
      outcomes.push(await window.gateway.sign(text, window.permission).then(() => 200, ({ status, message }) => [status, message]));
    }
    return outcomes;
  });
  assert.deepEqual(signed, [200, 200, [403, USED_UP]]);
});

test('the operator refuses, and the page is told so', async () => {
  const card = await request();
  const decided = decision();
  await decide(inbox, card, 'Refuse');
  assert.deepEqual(await decided, { status: 403, body: { message: REFUSED } });
  assert.equal(await ending(page), REFUSED);
  assert.equal(await page.locator('#results li').count(), 0);
});

test('the operator allows fewer than were asked for', async () => {
  const card = await request();
  await card.getByLabel('Signatures').fill('1');
  await decide(inbox, card, 'Allow');
  assert.equal(await ending(page), '1 of 2 signed.');
  assert.deepEqual(await page.locator('#results li').allInnerTexts(), ['contract.txt: contract.txt.p7s', `invoice.txt: ${USED_UP}`]);
});

test('a page that gives up takes its request back', async () => {
  const card = await request();
  await page.getByRole('button', { name: 'Cancel' }).click();
  assert.equal(await ending(page), 'Cancelled.');
  await card.waitFor({ state: 'detached' });
});
