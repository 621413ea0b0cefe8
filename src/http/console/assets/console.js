// What the pages do beyond links and forms, all of which work without it: times in the reader's own zone, pages that load themselves anew,
// the time that is left, questions before what cannot be undone, notifications.
'use strict';

(() => {
  const main = document.getElementById('main');
  const here = new URL(location.href);
  if (here.searchParams.has('done')) {
    // What was done is told once.
    here.searchParams.delete('done');
    history.replaceState(null, '', here);
  }

  // Times

  const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
  const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
  const localise = (root) => {
    for (const time of root.querySelectorAll('time[datetime]:not([title])')) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      time.title = time.textContent;
      time.textContent = ('date' in time.dataset ? day : full).format(at);
    }
  };

  // The time that is left, by the gateway's clock

  const inWords = (seconds) => {
    if (seconds < 120) return `${seconds} s left`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)} min left`;
    return `${Math.floor(seconds / 3600)} h left`;
  };
  let loadedAt = performance.now();
  const count = () => {
    const passed = (performance.now() - loadedAt) / 1000;
    for (const left of document.querySelectorAll('[data-left]')) {
      const seconds = Math.max(0, Math.ceil(Number(left.dataset.left) - passed));
      left.textContent = seconds === 0 ? 'time is over' : inWords(seconds);
      left.classList.toggle('soon', seconds < 20);
      const meter = left.closest('.ask')?.querySelector('meter');
      if (meter) meter.value = seconds;
    }
  };

  // Small things

  const prepare = (root) => {
    localise(root);
    for (const button of root.querySelectorAll('[data-copy]')) button.hidden = !navigator.clipboard;
    for (const label of root.querySelectorAll('[data-file-of]')) label.hidden = false;
    for (const button of root.querySelectorAll('[data-notify]')) {
      button.hidden = !('Notification' in window) || Notification.permission !== 'default';
    }
  };
  // A file is read here and goes with its form as text, so that forms stay what they are.
  document.addEventListener('change', async (event) => {
    const into = event.target.dataset?.into && document.getElementById(event.target.dataset.into);
    const [file] = event.target.files ?? [];
    if (into && file) into.value = file.size > into.maxLength ? '' : await file.text();
  });
  document.addEventListener('submit', (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
    // A second click must not send it twice.
    else for (const button of event.target.querySelectorAll('button')) setTimeout(() => { button.disabled = true; });
  });
  document.addEventListener('click', async (event) => {
    const copy = event.target.closest('[data-copy]');
    if (copy) {
      await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent);
      copy.textContent = 'Copied';
    }
    if (event.target.closest('[data-notify]')) {
      await Notification.requestPermission();
      prepare(document);
    }
  });
  window.addEventListener('pageshow', () => {
    for (const button of document.querySelectorAll('button:disabled')) button.disabled = false;
  });

  // Loading anew what has changed. Parts with a key stay as they are while their version does, so that nothing flickers and nothing that
  // is being typed is lost.

  const isTyping = () => {
    const active = document.activeElement;
    return active && main.contains(active) && active.matches('input:not([type=radio]):not([type=checkbox]), select, textarea') && active.value !== active.defaultValue;
  };
  const replace = (fresh) => {
    const known = new Map([...main.querySelectorAll(':scope > [data-key]')].map((part) => [part.dataset.key, part]));
    const open = [...main.querySelectorAll('details[open]')].map((details) => details.closest('tr')?.firstElementChild?.textContent);
    const focused = document.activeElement?.closest?.('[data-key]')?.dataset.key;
    // What was done stays told until the operator goes on.
    const told = main.querySelector(':scope > .notice[role=status]');
    const parts = [...(told ? [told] : []), ...fresh.childNodes].map((part) => {
      if (part === told) return part;
      const old = part.dataset?.key && known.get(part.dataset.key);
      if (old && part.dataset.version && old.dataset.version === part.dataset.version) {
        for (const left of part.querySelectorAll('[data-left]')) old.querySelector('[data-left]')?.setAttribute('data-left', left.dataset.left);
        return old;
      }
      if (part.classList?.contains('ask') && !old) part.classList.add('new');
      return document.importNode(part, true);
    });
    // A node that stays where it is keeps its frames.
    const wanted = new Set(parts);
    for (const child of [...main.childNodes]) if (!wanted.has(child)) child.remove();
    let at = main.firstChild;
    for (const part of parts) {
      if (part === at) at = at.nextSibling;
      else main.insertBefore(part, at);
    }
    for (const details of main.querySelectorAll('details')) {
      if (open.includes(details.closest('tr')?.firstElementChild?.textContent)) details.open = true;
    }
    if (focused && !main.contains(document.activeElement)) main.querySelector(`[data-key="${CSS.escape(focused)}"] button`)?.focus();
    loadedAt = performance.now();
    prepare(main);
    count();
  };
  let loading = false;
  let again = false;
  const load = async () => {
    if (loading || isTyping()) {
      again = true;
      return;
    }
    loading = true;
    again = false;
    try {
      const answer = await fetch(here, { headers: { 'X-Sealgate-Live': '1', Accept: 'text/html' }, cache: 'no-store' });
      if (answer.status === 401) location.assign('/console/login');
      if (answer.ok && !isTyping()) {
        const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
        replace(page.getElementById('main'));
        tellWaiting(Number(page.body.dataset.waiting));
      }
    } catch {
      // The gateway is away; the events come back when it does.
    }
    loading = false;
    if (again && !isTyping()) load();
  };
  document.addEventListener('focusout', () => { if (again) setTimeout(load); });

  // What waits

  const title = document.title.replace(/^\(\d+\) /, '');
  let waiting = Number(document.body.dataset.waiting || 0);
  const tellWaiting = (now) => {
    if (!Number.isFinite(now)) return;
    document.title = now > 0 ? `(${now}) ${title}` : title;
    for (const badge of document.querySelectorAll('[data-count]')) {
      badge.hidden = now === 0;
      badge.firstChild.textContent = now;
    }
    if (now > waiting && document.hidden && 'Notification' in window && Notification.permission === 'granted') {
      const note = new Notification('A signature is asked for', { body: `${now} waiting for your consent`, tag: 'sealgate-consent', silent: true });
      note.onclick = () => { window.focus(); location.assign('/console/consent'); };
    }
    waiting = now;
  };

  // Events: one tab listens and tells the others, for a browser has few connections for one host.

  const kinds = (main?.dataset.live || '').split(' ').filter(Boolean);
  const heed = ({ kind, data }) => {
    if (kind === 'consent') tellWaiting(data.waiting);
    if (kinds.includes(kind)) load();
  };
  const KINDS = ['consent', 'tokens', 'audit', 'stats'];
  const listen = (tell) => new Promise((over) => {
    const source = new EventSource('/console/events');
    for (const kind of KINDS) source.addEventListener(kind, (event) => tell({ kind, data: JSON.parse(event.data) }));
    let cut = false;
    source.addEventListener('open', () => {
      // What happened meanwhile was not told.
      if (cut) for (const kind of KINDS) if (kind !== 'consent') tell({ kind, data: {} });
      cut = false;
    });
    source.addEventListener('error', () => {
      cut = true;
      if (source.readyState === EventSource.CLOSED) over();
    });
  });
  const listenForEver = async (tell) => {
    for (;;) {
      await listen(tell);
      // Too many streams, or the session is over; a page that is loaded anew finds out.
      await new Promise((later) => setTimeout(later, 10000));
      load();
    }
  };
  if (main && document.querySelector('.side') && 'EventSource' in window) {
    if (navigator.locks && 'BroadcastChannel' in window) {
      const others = new BroadcastChannel('sealgate-console');
      others.onmessage = (message) => heed(message.data);
      navigator.locks.request('sealgate-console-events', () => listenForEver((event) => {
        others.postMessage(event);
        heed(event);
      }));
    } else {
      listenForEver(heed);
    }
  }

  prepare(document);
  count();
  setInterval(count, 1000);
})();
