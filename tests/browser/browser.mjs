// Chromium for tests and screenshots: nothing is fetched from anywhere, and nothing is kept.
import { chromium } from 'playwright-core';

const EXECUTABLE = process.env.SEALGATE_CHROMIUM ?? '/usr/bin/chromium';

/** Starts a browser with a profile of its own. */
export function launch(more = []) {
  return chromium.launch({
    executablePath: EXECUTABLE,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      ...more,
    ],
  });
}

/** Logs in to the console at `url`. */
export async function logIn(page, url, name, password) {
  await page.goto(`${url}/console/login`);
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.waitForURL((now) => !now.pathname.endsWith('/login'));
}

/** Presses Allow or Refuse on a request in the inbox, and waits until the inbox, loaded anew, says that it is done. */
export async function decide(inbox, card, button) {
  const loaded = inbox.waitForEvent('load');
  await card.getByRole('button', { name: button }).click();
  await loaded;
  await inbox.getByText(button === 'Allow' ? 'Allowed.' : 'Refused.').waitFor();
}
