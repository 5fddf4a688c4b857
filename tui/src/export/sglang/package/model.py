"""The model: blocks and mixers of modeling_deltafront.py, with attention by SGLang's backends over its paged KV cache, and what
else a mixer remembers in SGLang's pool of states. One GPU: no tensor or pipeline parallelism."""

import re
from dataclasses import dataclass

import torch
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from sglang.srt.model_loader.weight_utils import default_weight_loader
from sglang.srt.runtime_context import get_parallel
from torch import nn

from .modeling_deltafront import KERNELS, Block, RMSNorm
from .remembered import START, remembered
from .states import with_memory


@dataclass
class Here:
    """The tokens of a batch, sequences one after the other: what a mixer asks of its place."""

    of: torch.Tensor
    batch: object
    real: None = None
    balance: None = None
    padding: None = None

    def positions(self, *_):
        """Of the tokens in their sequences, [1, tokens]."""
        return self.of[None]


class Recurrent(nn.Module):
    """A mixer whose memory is a row."""

    def __init__(self, layer_id, entries, mixer):
        super().__init__()
        self.layer_id, self.entries, self.mixer = layer_id, entries, mixer

    def forward(self, x, here, _):
        """x [tokens, d] → [tokens, d]."""
        part = lambda x, memory: self.mixer(x, START, memory)  # noqa: E731
        return with_memory(self.layer_id, self.entries, here.batch, x, part)


class Softmax(nn.Module):
    """Attention, full or over a window: what is before and after the product of queries and keys is the mixer's."""

    def __init__(self, layer_id, entries, mixer):
        super().__init__()
        self.layer_id, self.entries, self.mixer = layer_id, entries, mixer
        before = -1 if mixer.window is None else mixer.window - 1
        self.attend = RadixAttention(mixer.heads, mixer.width, mixer.width**-0.5, mixer.kv_heads, layer_id,
                                     sliding_window_size=before)

    def forward(self, x, here, _):
        """x [tokens, d] → [tokens, d]."""
        angles = None
        if self.mixer.phi is not None:
            angles = with_memory(self.layer_id, self.entries, here.batch, x, self.mixer.phi)[None]
        q, k, v = (heads[0].flatten(1).contiguous() for heads in self.mixer.heads_of(x[None], here, angles))
        return self.mixer.written(self.attend(q, k, v, here.batch)[None], x[None])[0]


class Stack(nn.Module):
    """Embedding, blocks, final norm, by the names of the folder's weights."""

    def __init__(self, config):
        super().__init__()
        d, entries = config.hidden_size, remembered(config)
        self.embedding = VocabParallelEmbedding(config.vocab_size, d)
        self.layers = nn.ModuleList(Block(d, layer) for layer in config.layers)
        for index, block in enumerate(self.layers):
            if block.mixer is not None:
                served = Softmax if config.layers[index]["mixer"]["kind"] == "attention" else Recurrent
                block.mixer = served(index, entries.get(index, {}), block.mixer)
        self.final_norm = RMSNorm(d)

    def forward(self, x, here):
        """x [tokens, d] → [tokens, d]."""
        for block in self.layers:
            x = block(x, here)
        return self.final_norm(x)


class DeltafrontForCausalLM(nn.Module):
    def __init__(self, config, quant_config=None, prefix=""):
        super().__init__()
        if get_parallel().tp_size > 1 or get_parallel().pp_size > 1:
            raise ValueError("this model is served by one GPU: start SGLang without --tp-size and --pp-size")
        if quant_config is not None:
            raise ValueError("this model is served in the type of its weights: start SGLang without --quantization")
        KERNELS["fla"] = config.fla_kernels
        self.config = config
        self.model = Stack(config)
        self.divided = config.logits_divided_by_head_norms
        own_head = self.divided or not config.tie_word_embeddings
        self.head = ParallelLMHead(config.vocab_size, config.hidden_size) if own_head else self.model.embedding
        self.logits_processor = LogitsProcessor(config)
        for parameter in self.parameters():  # decays, biases and norms are read in float32
            if parameter.dim() < 2:
                parameter.data = parameter.data.float()

    def get_attention_sliding_window_size(self):
        return self.config.window_before

    def get_input_embeddings(self):
        return self.model.embedding

    @torch.no_grad()
    def forward(self, input_ids, positions, forward_batch, input_embeds=None, **_):
        """What SGLang's logits processor makes of the tokens of a batch, input_ids [tokens]."""
        x = self.model.embedding(input_ids) if input_embeds is None else input_embeds
        x = self.model(x, Here(positions, forward_batch))
        return self.logits_processor(input_ids, x, self.head, forward_batch)

    def load_weights(self, weights):
        """The tensors of model.safetensors, by name."""
        wanted = dict(self.named_parameters())
        given = {}
        for name, tensor in weights:
            given[name] = tensor
            name = re.sub(r"^(model\.layers\.\d+\.mixer)\.", r"\1.mixer.", name)
            if name not in wanted:
                raise ValueError(f"model.safetensors has {name}, and the stack of config.json has no such tensor")
            parameter = wanted.pop(name)
            getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor)
        if self.divided:
            head = given.get("head.weight", given["model.embedding.weight"]).float()
            parameter = self.head.weight
            parameter.weight_loader(parameter, head / head.norm(dim=1, keepdim=True).clamp_min(1e-30))
            wanted.pop("head.weight", None)
        if wanted:
            raise ValueError(f"model.safetensors lacks {', '.join(sorted(wanted))}")


EntryClass = DeltafrontForCausalLM
