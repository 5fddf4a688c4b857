// All phases in turn.

DEVICE void consume(Shared& shared, const DecodeArgs& args, Control* control, Step& step, u32 thread)
{
    u32 sequence = 0, reciprocal = 0xffffffffu / block_count();
    fetch_description(shared, args, 0, thread);
    fetch_description(shared, args, 1, thread);
    copies_wait<0>();
    consumers_sync();
    step.token = token_of(control->next[step.position & 1]);
    own_embedding(shared, shared.phase[0], args, step.token, thread);
    for (u32 i = 0; i < args.phase_count; i++) {
        const Phase& p = shared.phase[i % DESCRIPTIONS];
        Units units = my_units(p, step.position, reciprocal);
        stamp(step, i, BEGINS, thread);
        if (p.kind == GEMV) {
            gemv(shared, p, args, control, step, units, sequence, i, thread);
        } else {
            enter(shared, args, i, thread);
            if (p.kind == DELTA && p.width == 128) delta<4>(shared, p, step, units, sequence, thread);
            else if (p.kind == DELTA && p.width == 64) delta<2>(shared, p, step, units, sequence, thread);
            else if (p.kind == DELTA) delta<1>(shared, p, step, units, sequence, thread);
            else if (p.kind == MAMBA2 && p.width == 128) mamba2<4>(shared, p, step, units, sequence, thread);
            else if (p.kind == MAMBA2 && p.width == 64) mamba2<2>(shared, p, step, units, sequence, thread);
            else if (p.kind == MAMBA2) mamba2<1>(shared, p, step, units, sequence, thread);
            else if (p.kind == GATED_CONV) gated_conv(p, step, reciprocal, thread);
#if GENES & FORMS
            else if (p.kind == KDA && p.width == 128) kda<4>(shared, p, step, units, sequence, thread);
            else if (p.kind == KDA && p.width == 64) kda<2>(shared, p, step, units, sequence, thread);
            else if (p.kind == KDA) kda<1>(shared, p, step, units, sequence, thread);
            else if (p.kind == ADD) add_branches(shared, p, args, step, thread);
#endif
#if GENES & LEVELED
            else if (p.kind == LOG_DELTA && p.width == 128) log_linear<4, true>(p, step, reciprocal, thread);
            else if (p.kind == LOG_DELTA && p.width == 64) log_linear<2, true>(p, step, reciprocal, thread);
            else if (p.kind == LOG_DELTA) log_linear<1, true>(p, step, reciprocal, thread);
            else if (p.kind == LOG_MAMBA2 && p.width == 128) log_linear<4, false>(p, step, reciprocal, thread);
            else if (p.kind == LOG_MAMBA2 && p.width == 64) log_linear<2, false>(p, step, reciprocal, thread);
            else if (p.kind == LOG_MAMBA2) log_linear<1, false>(p, step, reciprocal, thread);
#endif
#if GENES & TURNING
            else if (p.kind == TURNS) turns(shared, p, step, reciprocal, thread);
#endif
            else if (p.kind == ATTEND && p.width == 128) attend<4>(shared, p, step, units, sequence, i, thread);
            else if (p.kind == ATTEND) attend<2>(shared, p, step, units, sequence, i, thread);
            else combine(shared, p, step, i, thread);
        }
        sequence += units.count;
        stamp(step, i, ENDS, thread);
    }
    // The last block to end prepares the next step: all have read the control words by then.
    if (thread == 0 && counter_take(&control->counter) + 1 == block_count()) {
        control->counter = 0;
        control->next[step.position & 1] = 0;
        control->position = step.position + 1;
        control->epoch += 1;
    }
}

KERNEL(decode_step, DecodeArgs, (WARPS + 1) * 32)
{
    Shared& shared = *(Shared*)shared_memory();
    Control* control = (Control*)args.control;
    u32 thread = thread_index();
    Step step;
    step.position = control->position, step.tag = tag_of(control->epoch), step.token = 0, step.trace = args.trace;
    if (thread == 0) {
        for (u32 s = 0; s < SLOTS; s++) {
            gate_init(&shared.full[s], FILL_ARRIVALS);
            gate_init(&shared.empty[s], 1);
        }
        gates_ready();
    }
    block_sync();
    if (thread < CONSUMERS) consume(shared, args, control, step, thread);
    else produce(shared, args, step.position, step.tag, thread - CONSUMERS);
}
