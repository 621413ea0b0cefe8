// Pictures of each page of the console, light, dark and as wide as a phone: node screenshots.mjs DEV_JSON FOLDER
import { readFile, mkdir } from 'node:fs/promises';
import { launch, logIn } from './browser.mjs';
import { caller } from './ticket_api.mjs';

const [, , devJson, folder] = process.argv;
const dev = JSON.parse(await readFile(devJson, 'utf8'));
const console_ = `${dev.url}/console`;

const LOOKS = {
  light: { colorScheme: 'light', viewport: { width: 1120, height: 720 } },
  dark: { colorScheme: 'dark', viewport: { width: 1120, height: 720 } },
  phone: { colorScheme: 'light', viewport: { width: 390, height: 1100 }, isMobile: true, hasTouch: true },
};

const PAGES = [
  ['consent', '/consent'],
  ['overview', '/overview'],
  ['tokens', '/tokens'],
  ['jobs', '/jobs'],
  ['permits', '/permits'],
  ['certificates', '/certificates'],
  ['audit', '/audit'],
  ['callers', '/callers'],
  ['operators', '/operators'],
  ['account', '/account'],
];

/** Something to look at. */
async function prepare(browser) {
  const ci = caller(dev.url, dev.api_key);
  for (let n = 0; n < 40; n++) await ci.sign(`document ${n}`);
  const context = await browser.newContext();
  const page = await context.newPage();
  await logIn(page, dev.url, dev.operator_user, dev.operator_password);
  for (const [name, role] of [['anna', 'administrator'], ['ben', 'approver']]) {
    await page.goto(`${console_}/operators`);
    await page.locator('input[name=name]').fill(name);
    await page.locator(`input[name=role][value=${role}]`).check();
    if (role === 'approver') {
      await page.locator('input[name=keys][value=named]').check();
      await page.locator('input[name=key][value=ec-p256]').check();
    }
    await page.getByRole('button', { name: 'Add' }).click();
    await page.locator('#secret').waitFor();
  }
  await page.goto(`${console_}/callers`);
  await page.getByLabel('Name', { exact: true }).fill('web-shop');
  await page.getByLabel('Origins of its web pages').fill('https://shop.example');
  await page.getByRole('button', { name: 'Add' }).click();
  await page.locator('#secret').waitFor();
  await certify(page);
  const asking = caller(dev.url, dev.consent_api_key);
  const permit = asking.send('POST', '/accessToken', JSON.stringify({ accessTimesNumber: 5, metaData: 'Five receipts of today' }));
  await page.goto(`${console_}/consent`);
  await page.getByRole('button', { name: 'Allow' }).click();
  if ((await permit).status !== 200) throw new Error('the permit was not granted');
  // These two stay open while the pictures are taken.
  const contract = await asking.ticket('CONTRACT No. 17\n\nThe parties agree that the delivery of 40 crates of apples\nis paid within 30 days.\n', '<h2>Contract No. 17</h2><p>40 crates of apples, <b>1 200 €</b>, paid within 30 days.</p>');
  await asking.send('POST', `${contract}/ds/creator`);
  const words = '<p>Invoices of November:</p><table><tr><th>No.</th><th>To</th><th>Sum</th></tr><tr><td>204</td><td>Orchard Ltd</td><td>310 €</td></tr><tr><td>205</td><td>Millers</td><td>95 €</td></tr></table>';
  asking.send('POST', '/accessToken', JSON.stringify({ accessTimesNumber: 3, metaData: words, prefViewHeight: 190 })).catch(() => {});
  await page.goto(`${console_}/audit`);
  await page.getByRole('button', { name: 'Verify' }).click();
  await page.getByText('sound', { exact: true }).waitFor();
  await context.close();
}

/** Three certificate requests, one of which has come to its end. */
async function certify(page) {
  const requests = `${dev.url}/fintech/api/v1/crypto/cert-requests/eio`;
  const headers = { Authorization: `Bearer ${dev.bank_token}`, 'Content-Type': 'application/json' };
  for (const [n, login, userName, userPosition] of [[1, 'moroz', 'Олена Мороз', 'Accountant'], [2, 'kovalenko', 'Ігор Коваленко', 'Director'], [3, 'bondar', 'Марія Бондар', 'Office manager']]) {
    const externalId = `0b2c6d6e-1111-4a31-8c3e-00000000000${n}`;
    const body = { externalId, email: `${login}@orchard.example`, login, number: `${n}`, userName, userPosition, orgName: 'Orchard Ltd' };
    const answer = await fetch(requests, { method: 'POST', headers, body: JSON.stringify(body) });
    if (answer.status !== 201) throw new Error(`no certificate request: ${answer.status} ${await answer.text()}`);
  }
  const open = async (name) => {
    await page.goto(`${console_}/certificates`);
    await page.getByRole('link', { name }).click();
  };
  // The development CA issues a moment later.
  for (const name of ['Ігор Коваленко', 'Марія Бондар', 'Олена Мороз']) {
    for (let n = 0; n < 100; n += 1) {
      await open(name);
      await page.getByRole('heading', { name: 'History' }).waitFor();
      if (await page.getByRole('button', { name: 'Activate' }).isVisible()) break;
    }
  }
  await page.getByRole('button', { name: 'Activate' }).click();
  await page.getByText('The certificate is active').waitFor();
}

async function take(browser, look, settings) {
  const context = await browser.newContext({ ...settings, locale: 'en-GB', timezoneId: 'UTC', deviceScaleFactor: 1 });
  const page = await context.newPage();
  const shoot = async (name) => {
    // Frames come after their page.
    await Promise.all(page.frames().map((frame) => frame.waitForLoadState('load')));
    // Of a long page the top says enough.
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    const { width } = settings.viewport;
    const clip = { x: 0, y: 0, width, height: Math.min(height, look === 'phone' ? 1100 : 900) };
    // With a phone's screen, pictures of more than the window lack the frames.
    const fullPage = look !== 'phone';
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    if (wide) throw new Error(`${name} is wider than the ${look} window`);
    await page.screenshot({ path: `${folder}/${name}-${look}.png`, clip, fullPage, animations: 'disabled' });
  };
  await page.goto(`${console_}/login`);
  await shoot('login');
  await logIn(page, dev.url, dev.operator_user, dev.operator_password);
  for (const [name, path] of PAGES) {
    await page.goto(`${console_}${path}`);
    await shoot(name);
  }
  await page.goto(`${console_}/consent`);
  await page.getByRole('link', { name: 'Look at it' }).first().click();
  await page.frameLocator('.viewer').getByText('CONTRACT').waitFor();
  await shoot('request');
  await page.goto(`${console_}/jobs?state=signed`);
  await page.locator('td a').first().click();
  await shoot('job');
  await page.goto(`${console_}/certificates`);
  await page.getByRole('link', { name: 'Ігор Коваленко' }).click();
  await page.getByRole('heading', { name: 'The certificate', exact: true }).waitFor();
  await shoot('certificate');
  await page.goto(`${console_}/callers/web-shop`);
  await shoot('caller');
  await page.goto(`${console_}/operators/ben`);
  await shoot('operator');
  await context.close();
}

await mkdir(folder, { recursive: true });
const browser = await launch();
try {
  await prepare(browser);
  for (const [look, settings] of Object.entries(LOOKS)) await take(browser, look, settings);
} finally {
  await browser.close();
}
