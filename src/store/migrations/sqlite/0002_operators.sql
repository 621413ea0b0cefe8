-- Operators' accounts, and the sessions of those who are logged in to the console. `id` of a session is the SHA-256 of its token.

CREATE TABLE operators (
    name     TEXT PRIMARY KEY,
    password TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    added    INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    body     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE operator_sessions (
    id       BLOB PRIMARY KEY,
    operator TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    began    INTEGER NOT NULL,
    seen     INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    address  TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX operator_sessions_by_operator ON operator_sessions (operator, began);
CREATE INDEX operator_sessions_by_end ON operator_sessions (expires);
