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
    else produce(shared, args, step.position, thread - CONSUMERS);
}
