-- Rungs, repeats from other seeds and longer trainings: a candidate may be trained several times.
PRAGMA user_version = 3;

-- Tokens that its values were trained for: of its highest finished rung; 0 before.
ALTER TABLE candidates ADD COLUMN fidelity INTEGER NOT NULL DEFAULT 0;

CREATE TABLE trainings (
    candidate_id INTEGER NOT NULL REFERENCES candidates (id) ON DELETE CASCADE,
    tokens       INTEGER NOT NULL,              -- asked for, from the beginning
    seed         INTEGER NOT NULL,              -- u64, same bits
    seconds      REAL NOT NULL,
    PRIMARY KEY (candidate_id, tokens, seed)
) STRICT, WITHOUT ROWID;

CREATE TABLE training_values (
    candidate_id   INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    seed           INTEGER NOT NULL,
    name           TEXT NOT NULL,
    mean           REAL NOT NULL,
    standard_error REAL,
    PRIMARY KEY (candidate_id, tokens, seed, name),
    FOREIGN KEY (candidate_id, tokens, seed) REFERENCES trainings (candidate_id, tokens, seed) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What was done before was trained once, to the end. All values but those known without training are the trainer's.
UPDATE candidates SET fidelity = (SELECT c.tokens FROM campaigns c WHERE c.id = campaign_id) WHERE state = 'done';
INSERT INTO trainings (candidate_id, tokens, seed, seconds)
    SELECT id, fidelity, seed, train_seconds FROM candidates WHERE state = 'done';
INSERT INTO training_values (candidate_id, tokens, seed, name, mean, standard_error)
    SELECT t.candidate_id, t.tokens, t.seed, v.name, v.mean, v.standard_error
    FROM trainings t JOIN candidate_values v USING (candidate_id)
    WHERE v.name NOT IN ('decode_us', 'prefill_us', 'parameters', 'decode_flops', 'prefill_flops', 'weight_bytes',
        'state_bytes', 'cache_bytes');
