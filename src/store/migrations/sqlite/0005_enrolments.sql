-- Certificate requests. What is asked for has a column of its own, the whole stands in `body` as JSON.
CREATE TABLE enrolments (
    id           BLOB PRIMARY KEY,
    organisation TEXT NOT NULL,
    login        TEXT NOT NULL,
    key_name     TEXT NOT NULL,
    state        TEXT NOT NULL,
    active       INTEGER NOT NULL,
    due          INTEGER,
    created      INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    body         TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX enrolments_by_organisation ON enrolments (organisation, created);
CREATE INDEX enrolments_by_creation ON enrolments (created);
CREATE INDEX enrolments_due ON enrolments (due) WHERE due IS NOT NULL;
-- A name signs with one certificate.
CREATE UNIQUE INDEX enrolments_active ON enrolments (key_name) WHERE active = 1;
