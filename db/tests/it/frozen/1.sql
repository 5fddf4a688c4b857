INSERT INTO campaigns (id, name, config_toml, config_folder, seed, evaluations, tokens, objectives, latency, finished, created_unix_s, revision) VALUES (1, 'stacks ü', 'name = "stacks ü" # as given', '/data/πρ', -7, 24, 4096, '["bits_per_byte","decode_us"]', '{"device":"cpu","dtype":"fp32","decode_context":512,"prefill_tokens":512,"memory_budget_mb":null,"batch_max":64,"threads":1,"time_whole_models":true,"decode_budget_us":123.5}', 1, 5, 9);
INSERT INTO campaigns (id, name, config_toml, config_folder, seed, evaluations, tokens, objectives, latency, finished, created_unix_s, revision) VALUES (2, 'box', '# Made by `deltafront optimize`.
command = "python worker.py"', '/data', 3, 10, 0, '["loss","-accuracy"]', '{}', 0, 6, 4);
INSERT INTO runs VALUES (1, 1, 'host', 77, 123, '0.1.0', 10, 20, 30, 'finished'), (2, 2, 'host', 78, NULL, '0.1.0', 10, 20, 31, 'paused');
INSERT INTO workers VALUES (1, 'trainer', 'deltafront-train 0.1.0', 'AMD EPYC'), (1, 'profiler', 'deltafront-profile 0.1.0', 'AMD EPYC');
INSERT INTO candidates (id, campaign_id, number, architecture, hash, reference, origin, seed, state, reason, log, failed_attempts, tokens, train_seconds, checkpoint) VALUES
    (1, 1, 1, 'd=64,vocab=256,tied | 2*gdn(h=1,k=16,v=32)+ffn(17) | swa(h=2,kv=1,k=16,w=63)', 'a1', 'samba', 'reference samba', -7, 'done', NULL, NULL, 1, 4096, 2.5, '/data/1.safetensors'),
    (2, 1, 2, 'd=64,vocab=256 | ffn(9)', 'b2', NULL, 'mutation of 1: layer 0 mixer gdn → none', 3, 'infeasible', 'decode_us is 200, over the budget of 123.5', NULL, 0, 0, 0.0, NULL),
    (3, 1, 3, 'd=64,vocab=256 | dn(h=1,k=16,v=16)', 'c3', NULL, 'random', 3, 'failed', 'the loss became NaN', 'line 1
line 2', 2, 512, 0.5, NULL),
    (4, 1, 4, 'd=64,vocab=256 | lm2(h=2,p=16,n=16,l=4)', 'd4', NULL, 'random', 3, 'training', NULL, NULL, 0, 1024, 0.5, NULL),
    (5, 2, 1, '{"optimizer":"sgd","layers":3}', 'e5', NULL, 'random', 3, 'done', NULL, NULL, 0, 0, 0.0, NULL),
    (6, 2, 2, '{"optimizer":"adam","layers":2}', 'f6', NULL, 'random', 3, 'failed', 'exit status 1', '', 2, 0, 0.0, NULL);
INSERT INTO candidate_values VALUES (1, 'bits_per_byte', 2.5, 0.1), (1, 'decode_us', 9.0, 0.2), (1, 'parameters', 12345.0, NULL), (2, 'decode_us', 200.0, NULL), (3, 'decode_us', 8.0, NULL), (5, 'loss', 1.5, NULL), (5, 'accuracy', 0.5, 0.01);
INSERT INTO curve_points VALUES (1, 1024, 5.5), (1, 4096, 3.25), (4, 1024, 5.25);
INSERT INTO events (campaign_id, seq, run_id, at_unix_s, kind, body) VALUES (1, 1, 1, 11, 'started', '{}'), (1, 2, 1, 12, 'given_up', '{"number":3}'), (2, 1, 2, 12, 'note', '"it''s {so}"');
