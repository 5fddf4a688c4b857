// Which states of a log-linear mixer are in use at a position (arXiv 2506.04761).

// Whether there is a past position of that level at `position` (`log_linear::is_in_use`).
DEVICE bool level_in_use(u32 level, u32 position, u32 levels)
{
    if (level == 0) return true;
    u32 rest = position >> (level - 1);
    return level + 1 == levels ? rest > 0 : (rest & 1) != 0;
}
// The level that all of the past up to it is in from `position` on, which is above 0 (`log_linear::merge`).
DEVICE u32 level_of_merged(u32 position, u32 levels)
{
    u32 level = 1;
    while (level + 1 < levels && (position >> (level - 1) & 1) == 0) level++;
    return level;
}
// Whether what `level` held before `position` is in `merged` from there on.
DEVICE bool level_merges(u32 level, u32 merged, u32 levels) { return level < merged || (level == merged && merged + 1 == levels); }
