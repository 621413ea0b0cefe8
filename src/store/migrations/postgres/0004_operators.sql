-- Operators' accounts, and the sessions of those who are logged in to the console. `id` of a session is the SHA-256 of its token.

CREATE TABLE operators (
    name text COLLATE "C" PRIMARY KEY,
    password text NOT NULL,
    disabled boolean NOT NULL,
    added bigint NOT NULL,
    epoch bigint NOT NULL,
    version bigint NOT NULL,
    body text NOT NULL
);

CREATE TABLE operator_sessions (
    id bytea PRIMARY KEY,
    operator text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    began bigint NOT NULL,
    seen bigint NOT NULL,
    expires bigint NOT NULL,
    address text
);
CREATE INDEX operator_sessions_by_operator ON operator_sessions (operator, began);
CREATE INDEX operator_sessions_by_end ON operator_sessions (expires);
