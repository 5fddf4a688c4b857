UPDATE whole_timings SET measured_unix_s = 1790000600;
INSERT INTO earlier_timings VALUES (1, 'decode_us', 96.5, 0.5, 100, 0.01, '1', NULL, 1790000000);
