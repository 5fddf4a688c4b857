-- The first schema. Numbers that must be finite are REAL NOT NULL: SQLite turns a NaN into NULL and so refuses it.
-- `application_id` is "dFnt"; `user_version` is the number of the newest migration, which an older program checks.
PRAGMA application_id = 1682337396;
PRAGMA user_version = 1;

CREATE TABLE campaigns (
    id               INTEGER PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE CHECK (name <> ''),
    config_toml      TEXT NOT NULL,             -- the campaign file as it was given
    config_folder    TEXT NOT NULL,             -- where it lay: relative paths in it start there
    seed             INTEGER NOT NULL,          -- u64, same bits
    evaluations      INTEGER NOT NULL CHECK (evaluations >= 0),
    tokens           INTEGER NOT NULL CHECK (tokens >= 0),
    objectives       TEXT NOT NULL,             -- JSON list of value names
    latency          TEXT NOT NULL,             -- JSON of the campaign file's [latency]
    finished         INTEGER NOT NULL DEFAULT 0 CHECK (finished IN (0, 1)),
    created_unix_s   INTEGER NOT NULL,
    revision         INTEGER NOT NULL DEFAULT 1 -- grows with every write
) STRICT;

-- One row per `deltafront run`. At most one of a campaign has no end; whose it is is the lock on the campaign.
CREATE TABLE runs (
    id               INTEGER PRIMARY KEY,
    campaign_id      INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    host             TEXT NOT NULL,
    pid              INTEGER NOT NULL,
    process_start    INTEGER,                   -- tells a process from a later one with the same pid
    version          TEXT NOT NULL,             -- of deltafront
    started_unix_s   INTEGER NOT NULL,
    heartbeat_unix_s INTEGER NOT NULL,
    ended_unix_s     INTEGER,
    end              TEXT CHECK (end IN ('finished', 'paused', 'failed', 'lost')),
    CHECK ((ended_unix_s IS NULL) = (end IS NULL))
) STRICT;
CREATE UNIQUE INDEX one_open_run ON runs (campaign_id) WHERE ended_unix_s IS NULL;

-- Who did the work of a run: provenance.
CREATE TABLE workers (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    role   TEXT NOT NULL,                       -- trainer, profiler
    worker TEXT NOT NULL,                       -- name and version
    device TEXT NOT NULL,
    PRIMARY KEY (run_id, role, worker, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE candidates (
    id              INTEGER PRIMARY KEY,
    campaign_id     INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    number          INTEGER NOT NULL CHECK (number >= 1),
    architecture    TEXT NOT NULL,              -- canonical text
    hash            TEXT NOT NULL,              -- its identity
    reference       TEXT,                       -- name of the reference stack it is
    origin          TEXT NOT NULL,
    seed            INTEGER NOT NULL,           -- u64, same bits
    state           TEXT NOT NULL CHECK (state IN ('proposed', 'training', 'done', 'infeasible', 'failed')),
    reason          TEXT,
    log             TEXT,
    failed_attempts INTEGER NOT NULL,
    tokens          INTEGER NOT NULL,
    train_seconds   REAL NOT NULL,
    checkpoint      TEXT,
    UNIQUE (campaign_id, number),
    UNIQUE (campaign_id, hash),
    CHECK (state NOT IN ('infeasible', 'failed') OR reason IS NOT NULL)
) STRICT;

CREATE TABLE candidate_values (
    candidate_id   INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    name           TEXT NOT NULL,
    mean           REAL NOT NULL,
    standard_error REAL,
    PRIMARY KEY (candidate_id, name)
) STRICT, WITHOUT ROWID;

-- Training loss against tokens.
CREATE TABLE curve_points (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    tokens       INTEGER NOT NULL,
    loss         REAL NOT NULL,
    PRIMARY KEY (candidate_id, tokens)
) STRICT, WITHOUT ROWID;

-- Timings of whole models, under the conditions of the campaign's [latency].
CREATE TABLE whole_timings (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,                 -- of the latency: decode_us, prefill_us
    median_us    REAL NOT NULL,
    spread_us    REAL NOT NULL,
    samples      INTEGER NOT NULL,
    other_load   REAL NOT NULL,
    kernels      TEXT NOT NULL,
    PRIMARY KEY (candidate_id, name)
) STRICT, WITHOUT ROWID;

-- The latency table, shared by all campaigns on the same device with the same kernels.
CREATE TABLE latencies (
    key             TEXT NOT NULL,              -- canonical text, device and dtype included
    kernels         TEXT NOT NULL,              -- version of the kernels
    key_json        TEXT NOT NULL,
    median_us       REAL NOT NULL,
    spread_us       REAL NOT NULL,
    samples         INTEGER NOT NULL,
    other_load      REAL NOT NULL,
    measured_unix_s INTEGER NOT NULL,
    PRIMARY KEY (key, kernels)
) STRICT, WITHOUT ROWID;

-- What happened, in order: a log for people. Nothing is rebuilt from it.
CREATE TABLE events (
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,
    run_id      INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    at_unix_s   INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    body        TEXT NOT NULL,                  -- JSON
    PRIMARY KEY (campaign_id, seq)
) STRICT, WITHOUT ROWID;
