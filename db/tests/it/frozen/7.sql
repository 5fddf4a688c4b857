UPDATE campaigns SET target_tokens = 16384 WHERE id = 1;
UPDATE training_values SET parts = x'0000c03f000080be' WHERE candidate_id = 1 AND tokens = 4096;
