-- Callers that operators have added. Few, and all of them are read at once.
CREATE TABLE callers (
    name text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    body text NOT NULL
);
