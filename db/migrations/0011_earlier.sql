-- Whole models that were timed twice: what the first timing said, and when each was.
PRAGMA user_version = 11;

ALTER TABLE whole_timings ADD COLUMN measured_unix_s INTEGER;

CREATE TABLE earlier_timings (
    candidate_id    INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    median_us       REAL NOT NULL,
    spread_us       REAL NOT NULL,
    samples         INTEGER NOT NULL,
    other_load      REAL NOT NULL,
    kernels         TEXT NOT NULL,
    millijoules     REAL,
    measured_unix_s INTEGER,
    PRIMARY KEY (candidate_id, name)
) STRICT, WITHOUT ROWID;
