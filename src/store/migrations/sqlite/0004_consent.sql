-- Permits that are asked for: where they stand, what was asked, and what callers say of it.

ALTER TABLE permits ADD COLUMN state TEXT NOT NULL DEFAULT 'granted';
UPDATE permits SET state = 'revoked' WHERE revoked;
ALTER TABLE permits DROP COLUMN revoked;
ALTER TABLE permits ADD COLUMN body TEXT;

-- While a permit is asked for, `expires` is when that must be decided.
CREATE INDEX permits_waiting ON permits (expires) WHERE state = 'asked';
CREATE INDEX permits_waiting_of ON permits (caller) WHERE state = 'asked';
CREATE INDEX permits_live_of ON permits (caller, expires) WHERE state = 'granted' AND reserved + committed < uses;

-- The pad: see `contents`.
CREATE TABLE words (permit BLOB PRIMARY KEY, pad BLOB NOT NULL, text TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- A job that waited for consent comes into the queue without having been in it before.
DROP TRIGGER job_was_put_back;
CREATE TRIGGER job_came_into_the_queue AFTER UPDATE OF state ON jobs WHEN OLD.state <> 'queued' AND NEW.state = 'queued' BEGIN
    INSERT INTO queue_lengths VALUES (NEW.token, 1) ON CONFLICT (token) DO UPDATE SET queued = queued + 1;
END;
