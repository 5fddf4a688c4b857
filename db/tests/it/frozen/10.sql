INSERT INTO trainers VALUES (1, 4096, -7, 'deltafront-train 0.1.0', 'cuda:0', 'node ü');
