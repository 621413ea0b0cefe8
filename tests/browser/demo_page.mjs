// The demo page of docs/examples/browser, as the person in front of it uses it.

/** Two files to sign. */
export const FILES = ['contract', 'invoice'].map((name) => ({ name: `${name}.txt`, mimeType: 'text/plain', buffer: Buffer.from(`The ${name}\n`) }));

/** Opens the page at `address`, to call the gateway at `gateway`. */
export async function open(page, address, gateway) {
  await page.goto(`${address}/?gateway=${encodeURIComponent(gateway)}`);
}

/** Chooses the files and presses the button. */
export async function askAndSign(page, { files = FILES, apiKey = '' } = {}) {
  await page.getByLabel('Files').setInputFiles(files);
  await page.getByLabel('API key').fill(apiKey);
  await page.getByRole('button', { name: 'Ask and sign' }).click();
}

/** What the page says in the end. */
export async function ending(page) {
  await page.locator('button[name=sign]:enabled').waitFor();
  return page.locator('#state').innerText();
}
