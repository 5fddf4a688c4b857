UPDATE candidates SET failure = 'diverged' WHERE state = 'failed';
UPDATE events SET number = 1, failure = 'crashed' WHERE kind = 'given_up';
