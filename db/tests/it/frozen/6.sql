INSERT INTO circumstances VALUES (1, 'data.corpus', '0a1b2c', '12 345'), (2, 'training.precision', 'bf16', '');
