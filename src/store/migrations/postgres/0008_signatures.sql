-- Signatures that callers upload to have them verified: they stand beside a ticket's content, and may hold a document of their own.

ALTER TABLE tickets ADD COLUMN signature_spooled text;
ALTER TABLE tickets ADD COLUMN signature_len bigint NOT NULL DEFAULT 0;

CREATE TABLE signatures (
    ticket uuid PRIMARY KEY,
    bytes bytea NOT NULL
);
ALTER TABLE signatures ALTER COLUMN bytes SET STORAGE EXTERNAL;
