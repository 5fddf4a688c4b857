-- By whom and where each training was done.
PRAGMA user_version = 10;

CREATE TABLE trainers (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    tokens       INTEGER NOT NULL,
    seed         INTEGER NOT NULL,
    worker       TEXT NOT NULL,
    device       TEXT NOT NULL,
    host         TEXT NOT NULL,
    PRIMARY KEY (candidate_id, tokens, seed)
) STRICT, WITHOUT ROWID;
