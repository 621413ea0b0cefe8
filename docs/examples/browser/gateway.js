// The ticket API for web pages: fetch and nothing else. Copy it into a page of yours.

/** The gateway said no; `message` is what it said. */
export class Refused extends Error {
  constructor(status, { message = `The gateway answered ${status}.`, failureCause } = {}) {
    super(failureCause ? `${message} ${failureCause}` : message);
    this.name = 'Refused';
    this.status = status;
  }
}

/** No answer reached the page; `message` says what may be the matter. */
export class Unreachable extends Error {
  name = 'Unreachable';
}

/** The gateway at `address`, as the caller with this API key, or as the caller to whom this page's origin belongs. */
export class Gateway {
  #api;
  #apiKey;

  constructor(address, apiKey = '') {
    this.#api = new URL('/api/v1/', address);
    this.#apiKey = apiKey;
  }

  /** Asks the operator for permission to make so many signatures; the answer comes when they have decided. `words` may be simple HTML. */
  async ask(signatures, words, signal) {
    const answer = await this.#send('POST', 'accessToken', { json: { accessTimesNumber: signatures, metaData: words }, signal });
    return (await answer.json()).accessTokenUuid;
  }

  /** How many signatures are left of a permission: the operator may have allowed fewer than were asked for. */
  async left(permission) {
    return (await (await this.#send('GET', `accessToken/${permission}`)).json()).usesLeft;
  }

  /** Gives back what is left of a permission. */
  async giveBack(permission) {
    await this.#send('DELETE', `accessToken/${permission}`);
  }

  /** Signs a file, or anything else that fetch can send. Returns the detached CMS signature. */
  async sign(content, permission, signal) {
    const { ticketUuid } = await (await this.#send('POST', 'ticket', { signal })).json();
    const ticket = `ticket/${ticketUuid}`;
    try {
      await this.#send('POST', `${ticket}/data`, { bytes: content, signal });
      await this.#send('POST', `${ticket}/ds/creator`, { json: { accessTokenUuid: permission }, signal });
      for (;;) {
        // Waits for the signature; 202 says to wait on.
        const answer = await this.#send('GET', `${ticket}/ds/data`, { signal });
        if (answer.status !== 202) return await answer.blob();
      }
    } finally {
      // The document leaves the gateway. If this does not reach it, it goes by itself an hour later.
      await this.#send('DELETE', ticket).catch(() => {});
    }
  }

  async #send(method, path, { json, bytes, signal } = {}) {
    const headers = {};
    if (this.#apiKey) headers.Authorization = `Bearer ${this.#apiKey}`;
    if (json) headers['Content-Type'] = 'application/json';
    if (bytes) headers['Content-Type'] = 'application/octet-stream';
    const request = { method, headers, body: json ? JSON.stringify(json) : bytes, signal };
    let answer;
    try {
      answer = await fetch(new URL(path, this.#api), request);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Unreachable(await this.#whatIsTheMatter(), { cause: error });
    }
    if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
    return answer;
  }

  /** A browser does not tell a page why a request failed, but the page can see what the browser guards. */
  async #whatIsTheMatter() {
    if (!isSecureContext) {
      return 'The browser lets only pages that came over HTTPS call programs on this computer, and this page did not.';
    }
    // Browsers without such a guard do not know the permission.
    const permission = await navigator.permissions.query({ name: 'loopback-network' }).catch(() => undefined);
    if (permission?.state === 'denied') {
      return 'The browser does not let this page call programs on this computer. Allow it in the site settings, beside the address of the page.';
    }
    return `No answer from ${this.#api.host}. Is the gateway running, and does its configuration have ${location.origin} among the origins of a caller?`;
  }
}
