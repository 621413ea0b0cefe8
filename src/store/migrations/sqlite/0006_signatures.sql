-- Signatures that callers upload to have them verified: they stand beside a ticket's content, and may hold a document of their own.

ALTER TABLE tickets ADD COLUMN signature_spooled TEXT;
ALTER TABLE tickets ADD COLUMN signature_len INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tickets_signature_spooled ON tickets (signature_spooled) WHERE signature_spooled IS NOT NULL;

-- The pad is that of `contents`.
CREATE TABLE signatures (ticket BLOB PRIMARY KEY, pad BLOB NOT NULL, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;
