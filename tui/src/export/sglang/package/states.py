"""What the layers of a stack remember, in SGLang's pool of states: a row for each request and layer."""

import torch
from sglang.srt.layers.attention.hybrid_linear_attn_backend import MambaAttnBackendBase
from sglang.srt.model_executor.forward_context import get_attn_backend

from .remembered import pack, unpack, width


class StateBackend(MambaAttnBackendBase):
    """Hands out the rows; the model's mixers read and write them. Slots of requests, their clearing and copying, and the static
    buffers of CUDA graphs are SGLang's."""

    needs_cpu_seq_lens = False

    def rows(self, layer_id):
        """Of all slots, [slots, numbers]; slot 0 is of padding."""
        return self.req_to_token_pool.mamba2_layer_cache(layer_id).temporal.flatten(1)

    def slots(self):
        """Of the requests of this batch, [B]."""
        return self.forward_metadata.mamba_cache_indices.clamp(min=0).long()

    def forward_decode(self, *_, **__):
        raise NotImplementedError("the model's mixers ask for their rows themselves")

    forward_extend = forward_decode


def with_memory(layer_id, entries, batch, x, part):
    """`part(x [B, T, d], memory)` for the sequences of a batch, whose tokens x [tokens, d] has one after the other."""
    backend = get_attn_backend().linear_attn_backend
    table, slots = backend.rows(layer_id), backend.slots()
    numbers, mode = width(entries), batch.forward_mode
    if mode.is_decode_or_idle():
        memory = unpack(table[slots], entries)
        y = part(x[:, None], memory)[:, 0]
        table[slots, :numbers] = pack(memory, entries)
        return y
    if mode.is_target_verify() or mode.is_draft_extend_v2():
        raise NotImplementedError("speculative decoding: a state does not go back; start SGLang without it")
    outputs, at = [], 0
    for i, (tokens, seen) in enumerate(zip(batch.extend_seq_lens_cpu, batch.extend_prefix_lens_cpu)):
        slot = slots[i : i + 1]
        row = table[slot] if seen else torch.zeros_like(table[slot])
        memory = unpack(row, entries)
        outputs.append(part(x[None, at : at + tokens], memory)[0])
        table[slot, :numbers] = pack(memory, entries)
        at += tokens
    y = torch.cat(outputs)
    # rows beyond the tokens are padding
    return y if at == x.shape[0] else torch.cat([y, y.new_zeros(x.shape[0] - at, *y.shape[1:])])
