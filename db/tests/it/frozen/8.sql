UPDATE whole_timings SET sum_us = 97.25;
