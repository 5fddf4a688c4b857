# --- Log-linear attention (arXiv 2506.04761) ---------------------------------------------------------------------------
# A state for each piece of a Fenwick tree over the past: o_t = Σ_ℓ λ_t^(ℓ) · read of S_t^(ℓ). From position t, position s
# is at level 0 if s = t, else at the number of bits of t XOR s; the last level holds all that is further away.


def merges(position, levels):
    """What the states become at `position` [B]: 0 or 1 for each new and old level, [B, L, L]."""
    level = torch.arange(levels, device=position.device)
    # The lowest bit of the position, −1 at 0. Counted: a GPU's log2 of a power of two may be just below its exponent.
    lowest = position & -position
    full = (lowest[:, None, None] >= 2 ** torch.arange(levels + 1, device=position.device)).sum(-1, keepdim=True) - 1
    upto, into = full.clamp_max(levels - 1), (full + 1).clamp_max(levels - 1)
    new, old = level[:, None], level[None, :]
    kept = (new == old) & (old > upto)
    return kept | (position[:, None, None] > 0) & (new == into) & (old <= upto.maximum(into))


def level_of_pairs(size, levels, device):
    """The level at which position i of a chunk sees position j, 0 for j > i: [C, C]."""
    i = torch.arange(size, device=device)
    apart = i[:, None] ^ i[None, :]
    bits = (apart[..., None] >= 2 ** torch.arange(size.bit_length(), device=device)).sum(-1)
    return bits.clamp_max(levels - 1).masked_fill(future(size, device), 0)


def fenwick_steps(q, k, v, g, beta, scales, states, position):
    """One position after the other. q, k [B, T, H, K], v [B, T, H, V], g and beta (None: nothing is erased) [B, T, H],
    scales λ [B, T, H, L], states [B, H, L, K, V], position [B]."""
    outputs = []
    for t in range(q.shape[1]):
        states = torch.einsum("bnl,bhlkv->bhnkv", merges(position, states.shape[2]).to(states.dtype), states)
        states = states * g[:, t, :, None, None, None].exp()
        key, written = k[:, t], k[:, t, :, :, None] * v[:, t, :, None, :]
        if beta is not None:
            read = torch.einsum("bhk,bhlkv->bhlv", key, states)
            states = states - (beta[:, t, :, None] * key)[:, :, None, :, None] * read[:, :, :, None]
            written = written * beta[:, t, :, None, None]
        states = torch.cat([states[:, :, :1] + written[:, :, None], states[:, :, 1:]], 2)
        outputs.append(torch.einsum("bhk,bhl,bhlkv->bhv", q[:, t], scales[:, t], states))
        position = position + 1
    return torch.stack(outputs, 1) if outputs else torch.zeros_like(v), states, position


def fenwick_chunks(q, k, v, g, beta, scales, states, position):
    """Whole chunks in parallel, from a position, [B], that is a multiple of the chunk and the same in all rows. A last
    chunk that is not whole may only be the last of all."""
    t, levels = q.shape[1], scales.shape[-1]
    chunks = [into_chunks(x, CHUNK) for x in (q, k, v, scales)]
    q, k, v, scales = chunks
    decays = Decays(into_chunks(g[..., None], CHUNK)[..., 0])
    to_end = (k * decays.to_end).transpose(-1, -2)  # [B, H, N, K, C]
    dense = q @ k.transpose(-1, -2) * decays.between
    reader, eraser = q * decays.since_start, None
    if beta is not None:
        beta = into_chunks(beta[..., None], CHUNK)
        inverse = unit_lower_inverse((k * beta) @ k.transpose(-1, -2) * decays.between)
        eraser = inverse @ (k * beta * decays.since_start)
        solved = inverse * beta.transpose(-1, -2)
        reader, dense, v_written = reader - dense @ eraser, dense @ solved, solved @ v
    else:
        v_written = v
    pairs = level_of_pairs(CHUNK, levels, q.device).expand(dense.shape)
    inside = dense * scales.gather(-1, pairs) @ v  # [B, H, N, C, V]
    outputs = []
    for n in range(inside.shape[2]):
        states = torch.einsum("bnl,bhlkv->bhnkv", merges(position, levels).to(states.dtype), states)
        read = reader[:, :, n, None] @ states  # [B, H, L, C, V]
        outputs.append(inside[:, :, n] + torch.einsum("bhcl,bhlcv->bhcv", scales[:, :, n], read))
        added = to_end[:, :, n] @ v_written[:, :, n]
        decayed = states * decays.whole[:, :, n, None]
        if eraser is not None:
            decayed = decayed - to_end[:, :, n, None] @ (eraser[:, :, n, None] @ states)
        states = torch.cat([decayed[:, :, :1] + added[:, :, None], decayed[:, :, 1:]], 2)
        position = position + CHUNK
    return from_chunks(torch.stack(outputs, 2), t), states


@part("log_linear")
def log_linear(q, k, v, g, beta, scales, place, memory):
    """The rule over T positions, as in `fenwick_steps`; sequences with padding before them are taken one by one, as the
    tree begins with their first token."""
    q, k, v, g, scales = (wide(x) for x in (q, k, v, g, scales))
    b, t, h, key_width = q.shape
    states = q.new_zeros(b, h, scales.shape[-1], key_width, v.shape[-1])
    position = torch.zeros(b, dtype=torch.long, device=q.device)
    if memory is not None and "states" in memory:
        states, position = memory["states"], memory["position"]
    elif memory is None and place.padding is None:
        return fenwick_chunks(q, k, v, g, beta, scales, states, position)[0]
    if t == 1 and place.real is None:
        o, states, position = fenwick_steps(q, k, v, g, beta, scales, states, position)
        memory.update(states=states, position=position)
        return o
    rows = []
    together = place.padding is None
    for row in [slice(0, b)] if together else [slice(i, i + 1) for i in range(b)]:
        skip = 0 if place.real is None else int((place.real[row].cumsum(1) == 0).sum(1)[0])
        of = [None if x is None else x[row, skip:] for x in (q, k, v, g, beta, scales)]
        state, at = states[row], position[row]
        lead = min(-int(at[0]) % CHUNK, t - skip)
        whole = (t - skip - lead) // CHUNK * CHUNK
        spans = [(0, lead), (lead, lead + whole), (lead + whole, t - skip)]
        outputs = [q.new_zeros(state.shape[0], skip, h, v.shape[-1])]
        for form, (begin, end) in zip((fenwick_steps, fenwick_chunks, fenwick_steps), spans):
            if begin < end:
                o, state, *_ = form(*(None if x is None else x[:, begin:end] for x in of), state, at)
                outputs.append(o)
                at = at + (end - begin)
        rows.append((torch.cat(outputs, 1), state, at))
    o, states, position = (torch.cat(x) for x in zip(*rows))
    if memory is not None:
        memory.update(states=states, position=position)
    return o
