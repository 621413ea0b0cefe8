-- Callers that operators have added. Few, and all of them are read at once.
CREATE TABLE callers (name TEXT PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
