-- Permits that are asked for: where they stand, what was asked, and what callers say of it.

ALTER TABLE permits ADD COLUMN state text COLLATE "C" NOT NULL DEFAULT 'granted';
UPDATE permits SET state = 'revoked' WHERE revoked;
ALTER TABLE permits DROP COLUMN revoked;
ALTER TABLE permits ADD COLUMN body text;

-- While a permit is asked for, `expires` is when that must be decided.
CREATE INDEX permits_waiting ON permits (expires) WHERE state = 'asked';
CREATE INDEX permits_waiting_of ON permits (caller) WHERE state = 'asked';
CREATE INDEX permits_live_of ON permits (caller, expires) WHERE state = 'granted' AND reserved + committed < uses;

CREATE TABLE words (
    permit uuid PRIMARY KEY,
    text text NOT NULL
);
