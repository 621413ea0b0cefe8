// The same where an administrator has decided for everybody: node local_network_policies.mjs FACTS
import { DENIED, INSECURE, NOT_SECURE, PERMISSION_DENIED, assertGuarded, assertSigned, launchOutside, seenBy } from './guard.mjs';

const facts = JSON.parse(process.argv[2]);
const browser = await launchOutside(facts);
try {
  assertSigned(await seenBy(facts, await browser.newContext(), facts.page));
  assertGuarded(await seenBy(facts, await browser.newContext(), facts.foreign_page), DENIED, ['denied', 'denied'], PERMISSION_DENIED);
  // It is allowed by policy, and still has to come over HTTPS.
  assertGuarded(await seenBy(facts, await browser.newContext(), facts.insecure_page), INSECURE, ['denied', 'denied'], NOT_SECURE);
} finally {
  await browser.close();
}
