-- Tickets, permits, jobs, repeated requests and audit logs. Times are milliseconds since the Unix epoch (UTC).
-- Texts that are compared are COLLATE "C": the order is the same whatever the database's locale, and cheap.

CREATE TABLE gateways (
    id uuid PRIMARY KEY,
    -- The last group of changes that this gateway has committed: how it finds out what became of a commit whose answer was lost.
    batch uuid
);

CREATE TABLE tickets (
    id uuid PRIMARY KEY,
    caller text COLLATE "C" NOT NULL,
    touched bigint NOT NULL,
    version bigint NOT NULL,
    job uuid,
    spooled text,
    content_len bigint NOT NULL,
    body text NOT NULL
);
CREATE INDEX tickets_by_caller ON tickets (caller);
CREATE INDEX tickets_by_use ON tickets (touched);
CREATE INDEX tickets_by_job ON tickets (job) WHERE job IS NOT NULL;

CREATE TABLE contents (
    ticket uuid PRIMARY KEY,
    bytes bytea NOT NULL
);
-- Documents are often compressed already, and trying costs time.
ALTER TABLE contents ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE permits (
    id uuid PRIMARY KEY,
    caller text COLLATE "C" NOT NULL,
    uses bigint NOT NULL,
    reserved bigint NOT NULL,
    committed bigint NOT NULL,
    expires bigint NOT NULL,
    revoked boolean NOT NULL
);
CREATE INDEX permits_by_end ON permits (expires);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    -- Its place in the queue, which it keeps.
    place bigint GENERATED ALWAYS AS IDENTITY,
    caller text COLLATE "C" NOT NULL,
    token text COLLATE "C" NOT NULL,
    permit uuid,
    accepted bigint NOT NULL,
    deadline bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    claim uuid,
    -- The gateway that claimed it.
    owner uuid,
    ended bigint,
    body text NOT NULL,
    outcome text
);
CREATE INDEX jobs_queued ON jobs (token, caller, place) WHERE state = 'queued';
CREATE INDEX jobs_by_deadline ON jobs (deadline) WHERE state = 'queued';
CREATE INDEX jobs_claimed ON jobs (owner) WHERE state = 'signing';
CREATE INDEX jobs_in_doubt ON jobs (place) WHERE state = 'in-doubt';
CREATE INDEX jobs_by_end ON jobs (ended) WHERE ended IS NOT NULL;
CREATE INDEX jobs_by_place ON jobs (place);
CREATE INDEX jobs_by_caller ON jobs (caller, place);

-- Requests with an idempotency key.
CREATE TABLE requests (
    caller text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    done text NOT NULL,
    expires bigint NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX requests_by_end ON requests (expires);

-- One hash chain for each gateway; `hash` is the SHA-256 of `text`.
CREATE TABLE audit (
    gateway uuid NOT NULL,
    seq bigint NOT NULL,
    text text NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (gateway, seq)
);
