UPDATE campaigns SET kind = 'black box' WHERE id = 2;
