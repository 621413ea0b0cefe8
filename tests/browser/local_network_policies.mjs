// The same where an administrator has decided for everybody: node local_network_policies.mjs FACTS
import { DENIED, INSECURE, NOT_SECURE, PERMISSION_DENIED, assertGuarded, assertSigned, launchOutside } from './guard.mjs';

const facts = JSON.parse(process.argv[2]);
const browser = await launchOutside(facts);
try {
  await assertSigned(facts, await browser.newContext(), facts.page, 'granted');
  await assertGuarded(facts, await browser.newContext(), facts.foreign_page, { says: DENIED, states: ['denied', 'denied'], told: PERMISSION_DENIED });
  // It is allowed by policy, and still has to come over HTTPS.
  await assertGuarded(facts, await browser.newContext(), facts.insecure_page, { says: INSECURE, states: ['denied', 'denied'], told: NOT_SECURE });
} finally {
  await browser.close();
}
