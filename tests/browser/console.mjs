// The console as people use it: node console.mjs FACTS
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { decide, launch, logIn } from './browser.mjs';
import { caller } from './ticket_api.mjs';

const facts = JSON.parse(process.argv[2]);
const CONSENT = `${facts.gateway}/console/consent`;
const ci = caller(facts.gateway, facts.api_key);

let browser;

before(async () => { browser = await launch(); });
after(() => browser.close());

/** A browser of an operator's own, at the inbox. */
async function operator(name, { context } = {}) {
  const own = context ?? await browser.newContext({ locale: 'en-GB' });
  const page = await own.newPage();
  await logIn(page, facts.gateway, name, facts.password);
  await page.goto(CONSENT);
  return page;
}

/** Asks for so many signatures; ends when somebody has decided. */
function ask(uses, who = ci) {
  return who.send('POST', '/accessToken', JSON.stringify({ accessTimesNumber: uses, metaData: `words about ${uses}` }));
}

function card(page, uses) {
  return page.locator('article.ask', { hasText: uses === 1 ? 'one signature' : `${uses} signatures` });
}

/** Presses Tab until what has the focus fits; no mouse, and no more keys than a person has patience for. */
async function tabTo(page, wanted, key = 'Tab') {
  for (let n = 0; n < 60; n += 1) {
    await page.keyboard.press(key);
    if (await page.evaluate((selector) => document.activeElement?.matches(selector), wanted)) return;
  }
  assert.fail(`${wanted} cannot be reached with ${key}`);
}

async function sees(page, text) {
  await page.getByText(text).first().waitFor();
}

test('with the keyboard alone one logs in, reads a request, and allows fewer or refuses', async () => {
  const page = await (await browser.newContext({ locale: 'en-GB' })).newPage();
  await page.goto(`${facts.gateway}/console/login`);
  // The name is where one begins to type.
  assert.equal(await page.evaluate(() => document.activeElement.name), 'name');
  await page.keyboard.type('root');
  await page.keyboard.press('Tab');
  await page.keyboard.type(facts.password);
  await page.keyboard.press('Enter');
  await page.waitForURL(CONSENT);

  const three = ask(3);
  await card(page, 3).waitFor();
  // The first thing that Tab comes to leads past the menu.
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  await tabTo(page, '.ask input[name=uses]');
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, 'none', 'what has the focus can be seen');
  await page.keyboard.press('Control+A');
  await page.keyboard.type('2');
  await tabTo(page, '.ask button.primary');

  // Another request comes in between, and the focus stays where it was.
  const two = ask(2);
  await card(page, 2).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.closest('.ask').innerText.includes('3 signatures')), true);
  await page.keyboard.press('Enter');
  await sees(page, 'Allowed. Whoever asked has been answered.');
  const allowed = await three;
  assert.equal(allowed.status, 200);
  assert.match(allowed.json().message, /: 2\.$/);

  await tabTo(page, '.ask button.danger');
  await page.keyboard.press('Space');
  await sees(page, 'Refused. Whoever asked has been answered.');
  assert.equal((await two).status, 403);
  await tabTo(page, '.who button', 'Shift+Tab');
  await page.keyboard.press('Enter');
  await sees(page, 'You are logged out.');
});

test('the title counts what waits, on every page, and a notification without a sound tells of it where it may', async () => {
  // The browser's own notification, seen as it is made; and a page that is not looked at.
  const watched = () => {
    const Real = window.Notification;
    window.notes = [];
    window.Notification = class extends Real {
      constructor(title, options) {
        super(title, options);
        window.notes.push({ title, body: this.body, silent: this.silent });
      }
    };
    Object.defineProperty(document, 'hidden', { get: () => window.looksAway === true });
  };
  const inbox = async (permissions) => {
    const context = await browser.newContext({ locale: 'en-GB', permissions });
    await context.addInitScript(watched);
    const page = await operator('root', { context });
    await page.evaluate(() => { window.looksAway = true; });
    return page;
  };
  const [told, untold] = [await inbox(['notifications']), await inbox([])];
  const permission = (page) => page.evaluate(() => Notification.permission);
  assert.deepEqual([await permission(told), await permission(untold)], ['granted', 'denied']);
  for (const page of [told, untold]) assert.equal(await page.getByRole('button', { name: 'Notify me' }).isVisible(), false);
  const jobs = await told.context().newPage();
  await jobs.goto(`${facts.gateway}/console/jobs`);
  assert.equal(await jobs.title(), 'Jobs · Sealgate');

  const [one, two] = [ask(1), ask(2)];
  for (const page of [told, untold, jobs]) await page.waitForFunction(() => document.title.startsWith('(2) '));
  assert.equal(await jobs.title(), '(2) Jobs · Sealgate');
  assert.equal(await jobs.locator('[data-count]').textContent(), '2 waiting');
  const notes = await told.evaluate(() => window.notes);
  assert.ok(notes.length >= 1 && notes.every(({ title, silent }) => title === 'A signature is asked for' && silent === true), JSON.stringify(notes));
  assert.match(notes.at(-1).body, /^[12] waiting for your consent$/);
  assert.ok(!JSON.stringify(notes).includes('words'), 'nothing of what the caller says');
  assert.deepEqual(await untold.evaluate(() => window.notes), []);

  await decide(told, card(told, 1), 'Refuse');
  assert.equal(await told.title(), '(1) Consent · Sealgate');
  await decide(told, card(told, 2), 'Refuse');
  await jobs.waitForFunction(() => document.title === 'Jobs · Sealgate');
  assert.deepEqual([(await one).status, (await two).status], [403, 403]);
  await told.context().close();
  await untold.context().close();
});

test('a text is shown in a frame that can do nothing', async () => {
  const page = await operator('root');
  const text = 'CONTRACT <script>top.wasHere = true</script> No. 17\n';
  const ticket = await ci.ticket(text);
  await ci.send('POST', `${ticket}/ds/creator`);
  await page.getByRole('link', { name: 'Look at it' }).click();
  const viewer = page.locator('iframe.viewer');
  assert.equal(await viewer.getAttribute('sandbox'), '');
  const frame = await (await viewer.elementHandle()).contentFrame();
  await frame.waitForLoadState('load');
  assert.equal(await frame.locator('body').innerText(), text);
  assert.equal(await page.evaluate(() => window.wasHere), undefined);
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Download' }).click()]);
  assert.equal(download.suggestedFilename(), 'document.txt');
  await decide(page, page.locator('article.ask'), 'Refuse');
  await page.context().close();
});

test('a PDF is shown in the viewer of the browser, which is no page of the console', async () => {
  const page = await operator('root');
  const ticket = await ci.ticket(pdf('CONTRACT No. 17'));
  await ci.send('POST', `${ticket}/ds/creator`);
  await page.getByRole('link', { name: 'Look at it' }).click();
  // As the gateway sends it: the viewer puts headers of its own in the place of these.
  const answer = await page.request.get(new URL(await page.locator('iframe.viewer').getAttribute('src'), facts.gateway).href);
  assert.equal(answer.headers()['content-type'], 'application/pdf');
  assert.equal(answer.headers()['content-security-policy'], "default-src 'none'; object-src 'self'; frame-ancestors 'self'");
  const viewer = () => page.frames().find((frame) => frame.url().startsWith('chrome-extension://'));
  while (!viewer()) await page.waitForEvent('framenavigated');
  await viewer().locator('viewer-toolbar').waitFor();
  await decide(page, page.locator('article.ask'), 'Allow');
  assert.equal((await ci.send('GET', `${ticket}/ds/base64Data`)).status, 200);
  await page.context().close();
});

test('two operators must both agree, and each sees what the other has said', async () => {
  const [ann, ben] = [await operator('ann'), await operator('ben')];
  const asked = ask(4, caller(facts.gateway, facts.two_operators_key));
  await card(ann, 4).getByLabel('Signatures').fill('3');
  const loaded = ann.waitForEvent('load');
  await card(ann, 4).getByRole('button', { name: 'Allow' }).click();
  await loaded;
  await sees(ann, 'Noted. Another operator must allow it, too.');
  await card(ann, 4).getByText('You have allowed it. Another operator must, too.').waitFor();
  assert.equal(await card(ann, 4).getByRole('button', { name: 'Allow' }).count(), 0, 'one person does not count twice');

  await card(ben, 4).getByText('agreed: ann (3)').waitFor();
  await decide(ben, card(ben, 4), 'Allow');
  const answer = await asked;
  assert.equal(answer.status, 200);
  assert.match(answer.json().message, /: 3\.$/, 'the lower number counts');
  await card(ann, 4).waitFor({ state: 'detached' });
  await ann.context().close();
  await ben.context().close();
});

test('a caller is added, gets a new key, and is revoked; a key is shown once', async () => {
  const page = await operator('root');
  page.on('dialog', (dialog) => dialog.accept());
  const comesIn = async (key) => (await caller(facts.gateway, key).send('POST', '/ticket')).status;
  await page.getByRole('link', { name: 'Callers' }).click();
  await page.getByLabel('Name', { exact: true }).fill('shop');
  await page.getByRole('button', { name: 'Add' }).click();
  const first = await page.locator('#secret').innerText();
  assert.match(first, /^[0-9A-Za-z]{38}$/);
  assert.equal(await comesIn(first), 200);
  await page.getByRole('link', { name: 'Done' }).click();
  await page.getByRole('link', { name: 'shop' }).waitFor();
  await page.goBack();
  assert.ok(!(await page.content()).includes(first), 'going back does not show it again');

  await page.goto(`${facts.gateway}/console/callers/shop`);
  assert.ok(!(await page.content()).includes(first));
  await page.getByLabel('Old keys stay good').fill('0');
  await page.getByRole('button', { name: 'Make' }).click();
  const second = await page.locator('#secret').innerText();
  assert.notEqual(second, first);
  assert.deepEqual([await comesIn(first), await comesIn(second)], [401, 200]);

  await page.goto(`${facts.gateway}/console/callers/shop`);
  await page.getByRole('button', { name: 'Revoke' }).click();
  await sees(page, 'The caller cannot come in any more.');
  assert.equal(await comesIn(second), 401);
  await page.getByRole('button', { name: 'Remove' }).click();
  await sees(page, 'The caller was removed.');
  assert.equal(await page.getByRole('link', { name: 'shop' }).count(), 0);
  await page.context().close();
});

test('a module is started again from the page of tokens, which shows its token come back by itself', async () => {
  const page = await operator('root');
  const questions = [];
  page.on('dialog', (dialog) => { questions.push(dialog.message()); dialog.accept(); });
  await page.goto(`${facts.gateway}/console/tokens`);
  const token = page.locator('.token');
  await token.getByText('ready', { exact: true }).waitFor();
  const since = () => token.locator('time').first().getAttribute('datetime');
  const before = await since();
  await token.getByRole('button', { name: 'Restart module' }).click();
  await sees(page, 'The module is being started again.');
  await page.evaluate(() => { window.wasThereBefore = true; });
  await page.waitForFunction((before) => {
    const [chip, time] = [document.querySelector('.token .chip'), document.querySelector('.token time')];
    return chip?.textContent === 'ready' && time?.dateTime !== before;
  }, before);
  assert.equal(questions.length, 1);
  const signed = ci.sign('after the restart');
  await page.goto(CONSENT);
  await decide(page, page.locator('article.ask'), 'Allow');
  assert.equal((await signed).status, 200);
  await page.context().close();
});

test('a certificate is brought as a file and activated', async () => {
  const page = await operator('root');
  await page.getByRole('link', { name: 'Certificates' }).click();
  await page.getByRole('link', { name: 'Иванов Иван Иванович' }).click();
  await page.getByLabel('From a file').setInputFiles(facts.certificate);
  await page.waitForFunction(() => document.getElementById('certificates').value.startsWith('-----BEGIN'));
  await page.getByRole('button', { name: 'Bring it' }).click();
  await sees(page, 'The certificate was taken.');
  await page.getByRole('button', { name: 'Activate' }).click();
  await sees(page, 'The certificate is active; the key signs with it now.');
  await page.context().close();
});

/** A PDF of one page with one line. */
function pdf(line) {
  const content = `BT /F1 24 Tf 72 720 Td (${line}) Tj ET`;
  const objects = [
    '<< /Type /Catalog /Pages 2 0 R >>',
    '<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
    '<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>',
    `<< /Length ${content.length} >>\nstream\n${content}\nendstream`,
    '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>',
  ];
  let text = '%PDF-1.4\n';
  const offsets = objects.map((object, n) => {
    const at = text.length;
    text += `${n + 1} 0 obj\n${object}\nendobj\n`;
    return at;
  });
  const table = offsets.map((at) => `${String(at).padStart(10, '0')} 00000 n \n`).join('');
  return `${text}xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${table}trailer\n<< /Size ${objects.length + 1} /Root 1 0 R >>\nstartxref\n${text.length}\n%%EOF\n`;
}
