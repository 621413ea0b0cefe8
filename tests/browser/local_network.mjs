// A page, a program on this computer, and Chromium between them: node local_network.mjs FACTS
import { launch } from './browser.mjs';
import { DENIED, INSECURE, NOT_SECURE, PERMISSION_DENIED, assertCalled, assertGuarded, assertSigned, launchOutside } from './guard.mjs';

const facts = JSON.parse(process.argv[2]);

const nearby = await launch();
try {
  // A page that came from this machine itself is not asked.
  await assertSigned(facts, await nearby.newContext(), facts.page, 'prompt');
  await assertCalled(facts, await nearby.newContext(), facts.page);
} finally {
  await nearby.close();
}
const browser = await launchOutside(facts);
try {
  // Headless, there is nobody who could be asked, and that counts as no.
  await assertGuarded(facts, await browser.newContext(), facts.page, { says: DENIED, states: ['prompt', 'denied'], told: PERMISSION_DENIED });
  await assertGuarded(facts, await decidedBy(browser, 'denied'), facts.page, { says: DENIED, states: ['denied', 'denied'], told: PERMISSION_DENIED });
  await assertSigned(facts, await decidedBy(browser, 'granted'), facts.page, 'granted');
  // A page that came over plain HTTP is not even asked.
  await assertGuarded(facts, await browser.newContext(), facts.insecure_page, { says: INSECURE, states: ['denied', 'denied'], told: NOT_SECURE });
} finally {
  await browser.close();
}

/** The profile of a person who has decided; there must be no other. */
async function decidedBy(browser, setting) {
  const context = await browser.newContext();
  const session = await browser.newBrowserCDPSession();
  const { browserContextIds: [browserContextId] } = await session.send('Target.getBrowserContexts');
  await session.send('Browser.setPermission', { permission: { name: 'loopback-network' }, setting, origin: facts.page, browserContextId });
  return context;
}
