import { Gateway } from './gateway.js';

const form = document.querySelector('form');
const cancel = document.querySelector('#cancel');
const state = document.querySelector('#state');
const results = document.querySelector('#results');

form.elements.gateway.value = new URLSearchParams(location.search).get('gateway') ?? 'http://127.0.0.1:9091';

let running;
cancel.addEventListener('click', () => running?.abort());
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  running = new AbortController();
  form.elements.sign.disabled = true;
  cancel.hidden = false;
  results.replaceChildren();
  try {
    await signAll([...form.elements.files.files], running.signal);
  } catch (error) {
    tell(running.signal.aborted ? 'Cancelled.' : error.message, 'bad');
  } finally {
    form.elements.sign.disabled = false;
    cancel.hidden = true;
  }
});

async function signAll(files, signal) {
  const gateway = new Gateway(form.elements.gateway.value, form.elements.key.value);
  tell('Waiting for the operator …');
  const permission = await gateway.ask(files.length, inWords(files), signal);
  let signed = 0;
  try {
    const allowed = await gateway.left(permission);
    for (const file of files) {
      tell(`The operator allowed ${allowed} of ${files.length}. Signing ${file.name} …`);
      // One that fails does not keep the others from being signed.
      const signature = await gateway.sign(file, permission, signal).catch((error) => error);
      signal.throwIfAborted();
      if (signature instanceof Blob) signed += 1;
      results.append(row(file, signature));
    }
    tell(`${signed} of ${files.length} signed.`, signed === files.length ? 'good' : 'bad');
  } finally {
    await gateway.giveBack(permission).catch(() => {});
  }
}

/** What the operator is shown: names are the user's own text, so they are escaped. */
function inWords(files) {
  const escaped = (text) => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);
  const items = files.map((file) => `<li>${escaped(file.name)}, ${file.size} bytes</li>`);
  return `<p>Please sign:</p><ul>${items.join('')}</ul>`;
}

function row(file, signature) {
  const item = document.createElement('li');
  item.append(`${file.name}: `);
  if (signature instanceof Blob) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(signature);
    link.download = `${file.name}.p7s`;
    link.textContent = link.download;
    item.append(link);
  } else {
    item.append(signature.message);
    item.className = 'bad';
  }
  return item;
}

function tell(text, mood = '') {
  state.textContent = text;
  state.className = mood;
}
