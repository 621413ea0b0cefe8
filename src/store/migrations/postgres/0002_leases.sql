-- Tokens of several gateways: who has which one for the time being, and what each gateway announces.

ALTER TABLE gateways ADD COLUMN name text NOT NULL DEFAULT '';

CREATE TABLE token_leases (
    token text COLLATE "C" PRIMARY KEY,
    gateway uuid NOT NULL,
    -- Milliseconds since the Unix epoch, by the database's clock.
    until bigint NOT NULL
);
CREATE INDEX token_leases_by_gateway ON token_leases (gateway);

CREATE TABLE announcements (
    gateway uuid NOT NULL,
    token text COLLATE "C" NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (gateway, token)
);
