-- The schema as the migrations leave it, with what each column holds now. Migrations are never changed, their comments
-- neither; this file is what to read. A test holds it to a new database.
-- Numbers that must be finite are REAL NOT NULL: SQLite turns a NaN into NULL and so refuses it.

CREATE TABLE campaigns (
    id               INTEGER PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE CHECK (name <> ''),
    config_toml      TEXT NOT NULL,             -- the campaign file as it was given; of a black box its settings
    config_folder    TEXT NOT NULL,             -- where it lay: relative paths in it start there
    seed             INTEGER NOT NULL,          -- u64, same bits
    evaluations      INTEGER NOT NULL CHECK (evaluations >= 0),
    tokens           INTEGER NOT NULL CHECK (tokens >= 0), -- of a full evaluation; 0 for a black box
    objectives       TEXT NOT NULL,             -- JSON list: `name` is minimised, `-name` maximised
    latency          TEXT NOT NULL,             -- JSON of the campaign file's [latency]
    finished         INTEGER NOT NULL DEFAULT 0 CHECK (finished IN (0, 1)),
    created_unix_s   INTEGER NOT NULL,
    revision         INTEGER NOT NULL DEFAULT 1, -- grows with every write
    kind             TEXT NOT NULL DEFAULT 'stacks' CHECK (kind IN ('stacks', 'black box')), -- what its candidates are
    target_tokens    INTEGER                    -- those that count; of older campaigns none: as many as `tokens`
) STRICT;

-- What results depend on beside the campaign file, as it was when the campaign began. Campaigns of older programs have none
-- until they are gone on with.
CREATE TABLE circumstances (
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    key         TEXT NOT NULL,                  -- of the campaign file: data.corpus, data.tokenizer, training.precision
    value       TEXT NOT NULL,                  -- the identity of what the file holds (search::contents); what `auto` is
    stamp       TEXT NOT NULL DEFAULT '',       -- size and times of the file then: as long as they stay, it is not read again
    PRIMARY KEY (campaign_id, key)
) STRICT, WITHOUT ROWID;

-- One row per `deltafront run` or `optimize`. At most one of a campaign has no end; whose it is is the lock on the campaign.
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
    role   TEXT NOT NULL,                       -- trainer, profiler, worker (of a black box)
    worker TEXT NOT NULL,                       -- name and version, of a profiler that of its kernels too
    device TEXT NOT NULL,
    PRIMARY KEY (run_id, role, worker, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE candidates (
    id              INTEGER PRIMARY KEY,
    campaign_id     INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    number          INTEGER NOT NULL CHECK (number >= 1),
    architecture    TEXT NOT NULL,              -- canonical text of a stack, or a black box's parameters as a JSON object
    hash            TEXT NOT NULL,              -- its identity
    reference       TEXT,                       -- name of the reference stack, or of the file's own stack, that it is
    origin          TEXT NOT NULL,              -- how it was made, for people
    seed            INTEGER NOT NULL,           -- u64, same bits
    state           TEXT NOT NULL CHECK (state IN ('proposed', 'training', 'done', 'infeasible', 'failed')),
    reason          TEXT,
    log             TEXT,                       -- the last lines of the worker that failed
    failed_attempts INTEGER NOT NULL,           -- at its present rung
    tokens          INTEGER NOT NULL,           -- trained on so far
    train_seconds   REAL NOT NULL,              -- of all its trainings
    checkpoint      TEXT,                       -- where a longer training can go on from
    retrieval       TEXT NOT NULL DEFAULT '[]', -- JSON list of {layer, snr: [[pairs, SNR], ...]}
    fidelity        INTEGER NOT NULL DEFAULT 0, -- tokens of its highest finished rung, to which its values belong
    given_up        INTEGER NOT NULL DEFAULT 0 CHECK (given_up IN (0, 1)), -- its run gave up because of its failure: tried again
    failure         TEXT,                       -- the kind of a failure: search::failure
    UNIQUE (campaign_id, number),
    UNIQUE (campaign_id, hash),
    CHECK (state NOT IN ('infeasible', 'failed') OR reason IS NOT NULL)
) STRICT;

-- Costs at proposal, latencies when the parts are timed, the rest after training: means over the seeds at its fidelity.
CREATE TABLE candidate_values (
    candidate_id   INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    name           TEXT NOT NULL,
    mean           REAL NOT NULL,
    standard_error REAL,
    PRIMARY KEY (candidate_id, name)
) STRICT, WITHOUT ROWID;

-- Finished trainings: rungs, repeats from other seeds, longer ones.
CREATE TABLE trainings (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    tokens       INTEGER NOT NULL,              -- asked for, from the beginning
    seed         INTEGER NOT NULL,              -- u64, same bits
    seconds      REAL NOT NULL,                 -- those of earlier rungs not included
    PRIMARY KEY (candidate_id, tokens, seed)
) STRICT, WITHOUT ROWID;

CREATE TABLE training_values (
    candidate_id   INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    seed           INTEGER NOT NULL,
    name           TEXT NOT NULL,
    mean           REAL NOT NULL,
    standard_error REAL,
    parts          BLOB,                        -- f32, little-endian: the mean in each of so many parts of the held-out text
    PRIMARY KEY (candidate_id, tokens, seed, name),
    FOREIGN KEY (candidate_id, tokens, seed) REFERENCES trainings (candidate_id, tokens, seed) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Who did them: what it takes to repeat one. Of trainings of older programs nothing.
CREATE TABLE trainers (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    tokens       INTEGER NOT NULL,
    seed         INTEGER NOT NULL,
    worker       TEXT NOT NULL,                 -- name and version
    device       TEXT NOT NULL,                 -- where it computed
    host         TEXT NOT NULL,                 -- on which machine
    PRIMARY KEY (candidate_id, tokens, seed)
) STRICT, WITHOUT ROWID;

-- Training loss against tokens.
CREATE TABLE curve_points (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    tokens       INTEGER NOT NULL,
    loss         REAL NOT NULL,                 -- nats per token
    PRIMARY KEY (candidate_id, tokens)
) STRICT, WITHOUT ROWID;

-- Timings of whole models, under the conditions of the campaign's [latency].
CREATE TABLE whole_timings (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,                 -- of the latency: decode_us, prefill_us; throughput: of its step
    median_us    REAL NOT NULL,
    spread_us    REAL NOT NULL,                 -- half the interquartile range
    samples      INTEGER NOT NULL,
    other_load   REAL NOT NULL,                 -- share of the machine that other processes used, 0 to 1
    kernels      TEXT NOT NULL,                 -- version of the kernels
    millijoules  REAL,                          -- for one token, where the device counts it
    sum_us       REAL,                          -- what its parts add up to; none: not timed, or an older program's
    measured_unix_s INTEGER,                    -- none: an older program's
    PRIMARY KEY (candidate_id, name)
) STRICT, WITHOUT ROWID;

-- Of those that were timed twice what the first timing said: how far the machine drifts.
CREATE TABLE earlier_timings (
    candidate_id    INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    median_us       REAL NOT NULL,
    spread_us       REAL NOT NULL,
    samples         INTEGER NOT NULL,
    other_load      REAL NOT NULL,
    kernels         TEXT NOT NULL,
    millijoules     REAL,
    measured_unix_s INTEGER,                    -- none: an older program's
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
    millijoules     REAL,
    PRIMARY KEY (key, kernels)
) STRICT, WITHOUT ROWID;

-- What happened, in order: a log for people. Nothing is rebuilt from it.
CREATE TABLE events (
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,
    run_id      INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    at_unix_s   INTEGER NOT NULL,
    kind        TEXT NOT NULL,                  -- a short word
    body        TEXT NOT NULL,                  -- sentences, and the last lines of a log
    number      INTEGER,                        -- of the candidate that it is about
    failure     TEXT,                           -- of a failed attempt its kind
    PRIMARY KEY (campaign_id, seq)
) STRICT, WITHOUT ROWID;
