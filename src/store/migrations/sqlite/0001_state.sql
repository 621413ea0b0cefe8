-- Tickets, permits, jobs, idempotent requests and the audit log. Times are milliseconds since the Unix epoch, ids are the 16 bytes of a UUID.

CREATE TABLE tickets (
    id          BLOB PRIMARY KEY,
    caller      TEXT NOT NULL,
    touched     INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    job         BLOB,
    spooled     TEXT,
    content_len INTEGER NOT NULL,
    body        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tickets_by_use ON tickets (touched);
CREATE INDEX tickets_by_job ON tickets (job) WHERE job IS NOT NULL;
CREATE INDEX tickets_spooled ON tickets (spooled) WHERE spooled IS NOT NULL;

-- Counted by triggers, so that asking costs the same however many there are.
CREATE TABLE ticket_counts (caller TEXT PRIMARY KEY, tickets INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER ticket_inserted AFTER INSERT ON tickets BEGIN
    INSERT INTO ticket_counts VALUES (NEW.caller, 1) ON CONFLICT (caller) DO UPDATE SET tickets = tickets + 1;
END;
CREATE TRIGGER ticket_deleted AFTER DELETE ON tickets BEGIN
    UPDATE ticket_counts SET tickets = tickets - 1 WHERE caller = OLD.caller;
END;

-- What callers gave us to sign and to show. SQLite overwrites what is deleted (secure_delete), but leaves copies of rows that it has moved from
-- page to page. The pad fills all of a row that stands in such a page (1,002 bytes of 4,096 at most), so the rest stands in pages of its
-- own, which never move and are overwritten when they are freed.
CREATE TABLE contents (ticket BLOB PRIMARY KEY, pad BLOB NOT NULL, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE metadata (ticket BLOB PRIMARY KEY, pad BLOB NOT NULL, text TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE permits (
    id        BLOB PRIMARY KEY,
    caller    TEXT NOT NULL,
    uses      INTEGER NOT NULL,
    reserved  INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    revoked   INTEGER NOT NULL,
    CHECK (reserved >= 0 AND committed >= 0 AND reserved + committed <= uses)
) STRICT, WITHOUT ROWID;
CREATE INDEX permits_by_end ON permits (expires);

-- `seq` is a job's place in the queue, which it keeps when it is put back.
CREATE TABLE jobs (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       BLOB NOT NULL UNIQUE,
    caller   TEXT NOT NULL,
    token    TEXT NOT NULL,
    permit   BLOB,
    accepted INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    state    TEXT NOT NULL,
    claim    BLOB,
    ended    INTEGER,
    body     TEXT NOT NULL,
    outcome  TEXT
) STRICT;
CREATE INDEX jobs_queued ON jobs (token, caller, seq) WHERE state = 'queued';
CREATE INDEX jobs_by_deadline ON jobs (deadline) WHERE state = 'queued';
CREATE INDEX jobs_signing ON jobs (seq) WHERE state = 'signing';
CREATE INDEX jobs_in_doubt ON jobs (seq) WHERE state = 'in-doubt';
CREATE INDEX jobs_by_end ON jobs (ended) WHERE ended IS NOT NULL;

CREATE TABLE queue_lengths (token TEXT PRIMARY KEY, queued INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER job_accepted AFTER INSERT ON jobs WHEN NEW.state = 'queued' BEGIN
    INSERT INTO queue_lengths VALUES (NEW.token, 1) ON CONFLICT (token) DO UPDATE SET queued = queued + 1;
END;
CREATE TRIGGER job_left_the_queue AFTER UPDATE OF state ON jobs WHEN OLD.state = 'queued' AND NEW.state <> 'queued' BEGIN
    UPDATE queue_lengths SET queued = queued - 1 WHERE token = NEW.token;
END;
CREATE TRIGGER job_was_put_back AFTER UPDATE OF state ON jobs WHEN OLD.state <> 'queued' AND NEW.state = 'queued' BEGIN
    UPDATE queue_lengths SET queued = queued + 1 WHERE token = NEW.token;
END;
CREATE TRIGGER queued_job_deleted AFTER DELETE ON jobs WHEN OLD.state = 'queued' BEGIN
    UPDATE queue_lengths SET queued = queued - 1 WHERE token = OLD.token;
END;

CREATE TABLE requests (
    caller  TEXT NOT NULL,
    key     TEXT NOT NULL,
    done    TEXT NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_end ON requests (expires);

-- One chain for each gateway. Nothing in it is ever changed or removed.
CREATE TABLE audit (
    gateway BLOB NOT NULL,
    seq     INTEGER NOT NULL,
    text    TEXT NOT NULL,
    hash    BLOB NOT NULL,
    PRIMARY KEY (gateway, seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit records are never changed'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit records are never removed'); END;
