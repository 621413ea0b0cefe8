// Chromium's guard before loopback addresses (Local Network Access): what a page of the public Internet sees of it.
import assert from 'node:assert/strict';
import { launch } from './browser.mjs';
import { askAndSign, ending, open } from './demo_page.mjs';

/** A browser for which the pages come from the public Internet, and the gateway from this machine. */
export function launchOutside(facts) {
  return launch([`--ip-address-space-overrides=127.0.0.1:${new URL(facts.page).port}=public`, '--host-resolver-rules=MAP shop.test 127.0.0.1']);
}

/** What a page at `address` sees, by its own words and by those of the browser's console. It is the context's last. */
export async function seenBy(facts, context, address) {
  const page = await context.newPage();
  const told = [];
  page.on('console', (line) => told.push(line.text()));
  let reached = false;
  page.on('response', (answer) => { reached ||= new URL(answer.url()).origin === facts.gateway; });
  await open(page, address, facts.gateway);
  const before = await permission(page);
  await askAndSign(page, { apiKey: facts.api_key });
  const says = await ending(page);
  const states = [before, await permission(page)];
  await context.close();
  return { says, states, reached, told: told.join('\n') };
}

function permission(page) {
  return page.evaluate(() => navigator.permissions.query({ name: 'loopback-network' }).then((status) => status.state));
}

export const DENIED = /^The browser does not let this page call programs on this computer\./;
export const INSECURE = /^The browser lets only pages that came over HTTPS call programs on this computer/;
export const PERMISSION_DENIED = /Permission was denied for this request to access the `loopback` address space/;
export const NOT_SECURE = /not a secure context and the resource is in more-private address space `loopback`/;

/** Asserts that nothing came through, what the page and the console say, and how the permission stands before and after. */
export function assertGuarded(seen, says, states, told) {
  assert.match(seen.says, says);
  assert.deepEqual(seen.states, states);
  assert.equal(seen.reached, false, 'no request came to the gateway');
  assert.match(seen.told, told);
}

export function assertSigned(seen, state = 'granted') {
  assert.deepEqual([seen.says, ...seen.states], ['2 of 2 signed.', state, state]);
}
