// Which experts of a mixture a token goes through (`moe::route_definition`), and where their weights stand. Both the producer,
// which streams no others, and the consumers look at the router's logits by themselves: the choice is the same.

#if GENES & CHOOSING
struct Choice { // of lane j the j-th expert, the largest logit first
    u32 expert;
    float weight;
};

// The next of the experts in the order of their logits, of equal ones the first: the one behind `last` of that logit.
struct Next {
    float logit;
    u32 expert;
};
DEVICE bool is_before(float a, u32 its, float b, u32 others) { return a > b || (a == b && its < others); }

DEVICE Choice choose(const Phase& p, u32 tag, u32 lane)
{
    const u32 KEPT = 4; // times 32 logits in registers; of more experts the rest are looked at again and again
    const float LEAST = as_float(0xff800000u); // −∞
    const u32* words = (const u32*)p.z;
    float logits[KEPT];
    for (u32 looks = 0;;) {
        bool here = true;
        for (u32 i = KEPT * 32 + lane; i < p.heads; i += 32) here = here && is_of(look(words + i), tag);
        UNROLL for (u32 i = 0; i < KEPT; i++) {
            logits[i] = LEAST;
            u32 word = tag;
            if (i * 32 + lane < p.heads) word = look(words + i * 32 + lane), logits[i] = untagged(word);
            here = here && is_of(word, tag);
        }
        if (here) break;
        look_again(looks);
    }
    warp_sync();
    Choice choice = {0, 0.f};
    Next last = {as_float(0x7f800000u), 0};
    float value = LEAST, largest = 0.f, total = 0.f;
    for (u32 j = 0; j < p.splits; j++) {
        Next best = {LEAST, 0xffffffffu};
        auto meet = [&](float logit, u32 expert) {
            if (is_before(last.logit, last.expert, logit, expert) && is_before(logit, expert, best.logit, best.expert)) best.logit = logit, best.expert = expert;
        };
        UNROLL for (u32 i = 0; i < KEPT; i++) meet(logits[i], i * 32 + lane);
        for (u32 i = KEPT * 32 + lane; i < p.heads; i += 32) meet(untagged(look(words + i)), i);
        UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) {
            float other = shuffle_xor(best.logit, mask);
            u32 its = as_bits(shuffle_xor(as_float(best.expert), mask));
            if (is_before(other, its, best.logit, best.expert)) best.logit = other, best.expert = its;
        }
        if (j == 0) largest = best.logit;
        if (lane == j) choice.expert = best.expert, value = best.logit;
        last = best;
    }
    if (p.splits == 1) { // a single expert weighs its softmax over all
        UNROLL for (u32 i = 0; i < KEPT; i++) total += exp_fast(logits[i] - largest);
        for (u32 i = KEPT * 32 + lane; i < p.heads; i += 32) total += exp_fast(untagged(look(words + i)) - largest);
        total = warp_sum(total);
    } else {
        total = warp_sum(exp_fast(value - largest));
    }
    choice.weight = lane < p.splits ? exp_fast(value - largest) * reciprocal_fast(total) : 0.f;
    return choice;
}

// Where the producer finds a unit of a product with the weights of chosen experts, `cache_blocks` units each.
DEVICE const u8* expert_unit(const Phase& p, u32 chosen, u32 unit)
{
    u32 pieces = p.units_per_group, group = unit / pieces, piece = unit % pieces, slot = p.window, own = unit;
    if (p.key_heads == BY_GROUP) slot = group / p.tiles, own = group % p.tiles * pieces + piece;
    else if (p.key_heads == BY_PIECE) slot = piece, own = group;
    u32 expert = as_bits(shuffle_from(as_float(chosen), slot));
    return (const u8*)p.stream + ((u64)expert * p.cache_blocks + own) * p.unit_bytes;
}
#endif // GENES
