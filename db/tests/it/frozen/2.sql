UPDATE candidates SET retrieval = '[{"layer":0,"snr":[[2,17.5],[1000,0.25]]}]' WHERE id = 1;
