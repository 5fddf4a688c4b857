// The gated short convolution (arXiv 2511.23404), a thread to a channel: u = B x̃, y = C Σ_j w_j u_{t−k+1+j}, k = `width`.
// now: B, C, x̃, `groups` channels each. The ring holds u of the last k − 1 positions, that of position s in row s % (k − 1).

const u32 MOST_TAPS = 8;

DEVICE void gated_conv(const Phase& p, const Step& step, u32 reciprocal, u32 thread)
{
    u32 blocks = block_count(), me = block_index() + p.rotation, channels = p.groups, past = p.width - 1;
    if (me >= blocks) me -= blocks;
    u32 end = over_blocks(channels * (me + 1), blocks, reciprocal); // the host checks the range
    for (u32 c = over_blocks(channels * me, blocks, reciprocal) + thread; c < end; c += CONSUMERS) {
        float* ring = (float*)p.ring + c;
        const float* weight = (const float*)p.conv_weight + (u64)c * p.width;
        float seen[MOST_TAPS - 1], w[MOST_TAPS - 1];
        UNROLL for (u32 j = 0; j + 1 < MOST_TAPS; j++) {
            seen[j] = w[j] = 0.f;
            if (j < past) seen[j] = load_constant(ring + (step.position + j) % past * channels), w[j] = load_constant(weight + j);
        }
        float last = load_constant(weight + past), b, gate, x;
        for (u32 looks = 0;;) {
            u32 words[3];
            UNROLL for (u32 part = 0; part < 3; part++) words[part] = look((const u32*)p.now + part * channels + c);
            b = untagged(words[0]), gate = untagged(words[1]), x = untagged(words[2]);
            if (is_of(words[0], step.tag) && is_of(words[1], step.tag) && is_of(words[2], step.tag)) break;
            look_again(looks);
        }
        float u = b * x, z = last * u;
        UNROLL for (u32 j = 0; j + 1 < MOST_TAPS; j++) z += w[j] * seen[j];
        show((u32*)p.out + c, tagged(gate * z, step.tag));
        ring[step.position % past * channels] = u;
    }
}
