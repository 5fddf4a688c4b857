UPDATE candidates SET fidelity = 4096 WHERE state = 'done' AND campaign_id = 1;
INSERT INTO trainings VALUES (1, 1024, -7, 0.5), (1, 4096, -7, 2.0), (4, 1024, 3, 0.25);
INSERT INTO training_values (candidate_id, tokens, seed, name, mean, standard_error) VALUES (1, 1024, -7, 'bits_per_byte', 3.5, 0.1), (1, 4096, -7, 'bits_per_byte', 2.5, 0.1);
