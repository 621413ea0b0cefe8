// Chromium's guard before loopback addresses (Local Network Access): what a page of the public Internet sees of it.
import assert from 'node:assert/strict';
import { launch } from './browser.mjs';
import { canary } from './canary.mjs';
import { askAndSign, ending, open } from './demo_page.mjs';

/** A browser for which the pages come from the public Internet, and the gateway from this machine. */
export function launchOutside(facts) {
  return launch([`--ip-address-space-overrides=127.0.0.1:${new URL(facts.page).port}=public`, '--host-resolver-rules=MAP shop.test 127.0.0.1']);
}

/** What a page at `address` that calls `gateway` sees, by its own words and by those of the browser's console. It is the context's last. */
async function seenBy(facts, context, address, gateway) {
  const page = await context.newPage();
  const told = [];
  page.on('console', (line) => told.push(line.text()));
  await open(page, address, gateway);
  const before = await permission(page);
  await askAndSign(page, { apiKey: facts.api_key });
  const says = await ending(page);
  const states = [before, await permission(page)];
  await context.close();
  return { says, states, told: told.join('\n') };
}

function permission(page) {
  return page.evaluate(() => navigator.permissions.query({ name: 'loopback-network' }).then((status) => status.state));
}

export const DENIED = /^The browser does not let this page call programs on this computer\./;
export const INSECURE = /^The browser lets only pages that came over HTTPS call programs on this computer/;
export const PERMISSION_DENIED = /Permission was denied for this request to access the `loopback` address space/;
export const NOT_SECURE = /not a secure context and the resource is in more-private address space `loopback`/;

/** Asserts that nothing comes through, what the page and the console say, and how the permission stands before and after. */
export async function assertGuarded(facts, context, address, { says, states, told }) {
  // Its gateway is one that would notice a preflight, too.
  const bird = await canary();
  const seen = await seenBy(facts, context, address, bird.url);
  bird.close();
  assert.deepEqual(bird.calls, []);
  assert.match(seen.says, says);
  assert.deepEqual(seen.states, states);
  assert.match(seen.told, told);
}

/** Asserts that both files are signed, and how the permission stands. */
export async function assertSigned(facts, context, address, state) {
  const seen = await seenBy(facts, context, address, facts.gateway);
  assert.deepEqual([seen.says, ...seen.states], ['2 of 2 signed.', state, state]);
}

/** Asserts that a gateway which does not know the page is called nevertheless, and what the page says of it. */
export async function assertCalled(facts, context, address) {
  const bird = await canary();
  const seen = await seenBy(facts, context, address, bird.url);
  bird.close();
  assert.deepEqual(bird.calls, ['/api/v1/accessToken']);
  assert.match(seen.says, /^No answer from 127\.0\.0\.1:\d+\. Is the gateway running, and does its configuration have http:\/\/127\.0\.0\.1:\d+ among the origins/);
}
