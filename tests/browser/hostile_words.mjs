// What hostile callers say to the operator, who sees it and goes on working: node hostile_words.mjs FACTS
import assert from 'node:assert/strict';
import { decide, launch, logIn } from './browser.mjs';
import { canary } from './canary.mjs';
import { caller } from './ticket_api.mjs';

const facts = JSON.parse(process.argv[2]);
const bird = await canary();

/** Each calls the canary where a page lets it. */
const HOSTILE = {
  script: (url) => `<script>parent.wasHere = true; alert(1); new Image().src = '${url}'</script>`,
  onerror: (url) => `<img src="x:" onerror="parent.wasHere = true; new Image().src='${url}'">`,
  image: (url) => `<img src="${url}">`,
  svg: (url) => `<svg onload="new Image().src='${url}'"><image href="${url}"></image></svg>`,
  refresh: (url) => `<meta http-equiv="refresh" content="0;url=${url}">`,
  top: (url) => `<script>top.location = '${url}'</script>`,
  style: (url) => `<p style="background: url(${url})">words</p>`,
  sheet: (url) => `<style>@import '${url}'; body { background: url(${url}) }</style><p>words</p>`,
  link: (url) => `<link rel="stylesheet" href="${url}">`,
  prefetch: (url) => `<link rel="prefetch" href="${url}">`,
  base: (url) => `<base href="${url}/"><img src="../base">`,
  frame: (url) => `<iframe src="${url}"></iframe>`,
  framed: (url) => `<iframe srcdoc="<img src='${url}'>"></iframe>`,
  object: (url) => `<object data="${url}"></object>`,
  embed: (url) => `<embed src="${url}">`,
  video: (url) => `<video poster="${url}"></video>`,
  input: (url) => `<form action="${url}"><input type="image" src="${url}"><button>Allow</button></form>`,
  form: (url) => `<form id="f" action="${url}" target="_top"><input name="pin"></form><script>document.getElementById('f').submit()</script>`,
  focus: (url) => `<input autofocus onfocus="new Image().src='${url}'">`,
  body: (url) => `<body background="${url}">`,
};
/** Hostile only after a careless sanitiser has taken it apart and put it together. */
const MUTATION = `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x: onerror=&quot;new Image().src='${bird.url}/mutation'&quot;&gt;">`;
const NESTED = '<div><b>'.repeat(125_000);

const browser = await launch();
try {
  await showThatTheyAreHostile();
  const inbox = await (await browser.newContext()).newPage();
  const surprises = [];
  inbox.on('dialog', (dialog) => { surprises.push(dialog.message()); dialog.dismiss(); });
  inbox.on('console', (line) => { if (line.type() === 'error' || line.type() === 'warning') surprises.push(line.text()); });
  inbox.on('pageerror', (error) => surprises.push(error.message));
  inbox.on('popup', (popup) => surprises.push(popup.url()));
  await logIn(inbox, facts.gateway, facts.operator, facts.password);
  await inbox.goto(`${facts.gateway}/console/consent`);
  bird.calls.length = 0;

  const ci = caller(facts.gateway, facts.api_key);
  const said = [...Object.entries(HOSTILE).map(([name, words]) => words(`${bird.url}/${name}`)), MUTATION, NESTED];
  const answers = said.map((metaData) => ci.send('POST', '/accessToken', JSON.stringify({ accessTimesNumber: 2, metaData })));
  const cards = inbox.locator('article.ask');
  await cards.nth(said.length - 1).waitFor();
  await lookAtAll(inbox, cards);

  // The buttons do what they say: one is allowed, the others are refused.
  await decide(inbox, cards.first(), 'Allow');
  for (let left = said.length - 1; left > 0; left -= 1) await decide(inbox, cards.first(), 'Refuse');
  await inbox.getByText('Nothing waits for you.').waitFor();
  const statuses = (await Promise.all(answers)).map((answer) => answer.status).sort();
  assert.deepEqual(statuses, [200, ...Array(said.length - 1).fill(403)]);

  await fetch(`${bird.url}/end`);
  assert.deepEqual(bird.calls, ['/end'], 'nothing was loaded');
  assert.deepEqual(surprises, []);
} finally {
  await browser.close();
  bird.close();
}

/** In a page that nothing guards each of them calls the canary: what follows would not show anything otherwise. */
async function showThatTheyAreHostile() {
  const context = await browser.newContext();
  await Promise.all(Object.entries(HOSTILE).map(async ([name, words]) => {
    const page = await context.newPage();
    bird.serve(`/page/${name}`, `<!doctype html><title>${name}</title>${words(`${bird.url}/${name}`)}`);
    // Some are elsewhere before they have been loaded.
    await page.goto(`${bird.url}/page/${name}`).catch(() => {});
    await bird.called(`/${name}`);
  }));
  await context.close();
}

/** Brings every frame before the operator's eyes, and looks what is in it. */
async function lookAtAll(inbox, cards) {
  for (const card of await cards.all()) {
    const element = card.locator('.words iframe');
    await element.scrollIntoViewIfNeeded();
    const frame = await (await element.elementHandle()).contentFrame();
    await frame.waitForURL(/\/words$/);
    await frame.waitForLoadState('load');
    const forbidden = 'script, img, svg, meta[http-equiv], link, base, iframe, object, embed, video, form, input, button, [style], [background], [onfocus]';
    assert.equal(await frame.locator(forbidden).count(), 0, await frame.content());
  }
  const frames = inbox.frames().map((frame) => new URL(frame.url()).pathname);
  assert.equal(frames.filter((path) => !/^\/console\/consent(\/[0-9a-f-]+\/words)?$/.test(path)).length, 0, frames.join());
  assert.equal(frames.length, 1 + await cards.count(), 'no frame in a frame');
  assert.equal(await inbox.evaluate(() => window.wasHere), undefined);
}
