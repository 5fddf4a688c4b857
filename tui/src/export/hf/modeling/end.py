# --- The model ---------------------------------------------------------------------------------------------------------


class Block(GradientCheckpointingLayer):
    """x += mixer(norm x), then x += ffn(norm x), or with the norms behind them; either may be absent."""

    def __init__(self, d, layer):
        super().__init__()
        self.mixer = self.ffn = None
        self.norms_after = False
        if "mixer" in layer:
            shape = dict(layer["mixer"])
            self.norms_after = shape.pop("norm_after", False)
            self.mixer_norm = RMSNorm(d)
            self.mixer = PARTS[shape.pop("kind")](d, **shape)
        if "ffn_width" in layer:
            self.ffn_norm = RMSNorm(d)
            kind, width = layer.get("ffn_kind", "swiglu"), layer["ffn_width"]
            is_mixture = isinstance(kind, dict)
            self.ffn = PARTS["moe"](d, width, **kind["moe"]) if is_mixture else FeedForward(d, width, kind)

    def forward(self, x, place, memory=None):
        if self.mixer is not None:
            y = x if self.norms_after else self.mixer_norm(x)
            if place.real is not None:
                y = y * place.real[..., None]
            y = self.mixer(y, place, memory)
            x = x + (self.mixer_norm(y) if self.norms_after else y)
        if self.ffn is not None:
            y = self.ffn(x if self.norms_after else self.ffn_norm(x), place.balance)
            x = x + (self.ffn_norm(y) if self.norms_after else y)
        return x


class DeltafrontPreTrainedModel(PreTrainedModel):
    config_class = DeltafrontConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _is_stateful = True
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module):
        """Initial values of deltafront's training rule: by fan-in, and small where the residual stream is written to."""
        d = self.config.hidden_size
        if getattr(module, "role", None):
            std = module.in_features**-0.5
            if module.role == "writer":
                std = 0.25 * (module.in_features * max(self.config.branches, 1))**-0.5
            nn.init.normal_(module.weight, std=std if module.role != "head" else d**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=d**-0.5)
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif "Convolution" in globals() and isinstance(module, Convolution):
            for tensor in module.parameters():
                nn.init.uniform_(tensor, -module.weight.shape[1]**-0.5, module.weight.shape[1]**-0.5)
        for name, tensor in module.named_parameters(recurse=False):
            if name == "A_log":
                lowest = 1.0 if type(module).__name__ in ("Mamba2", "Kda") else 1 / 64
                nn.init.uniform_(tensor, lowest, 16.0)
                tensor.log_()
            elif name == "dt_bias":  # softplus gives Δt, log-uniform
                nn.init.uniform_(tensor, math.log(1e-3), math.log(0.1))
                tensor.copy_(tensor.exp() + torch.log(-torch.expm1(-tensor.exp())))
            elif name in ("D", "L", "scale"):
                nn.init.ones_(tensor)
            elif name in ("bias", "gate_bias") and type(module).__name__ == "SelectiveRope":
                nn.init.zeros_(tensor)
            elif name == "temperature":
                tensor.copy_(module.fixed(len(tensor)))
            elif name == "meta":
                nn.init.normal_(tensor, std=d**-0.5)


@dataclass
class ModelWithMemory(ModelOutput):
    last_hidden_state: torch.Tensor | None = None
    cache: Memory | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    balance: torch.Tensor | None = None


@dataclass
class CausalLMWithMemory(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cache: Memory | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    balance: torch.Tensor | None = None


class DeltafrontModel(DeltafrontPreTrainedModel):
    """Embedding, meta tokens before every sequence, blocks, final norm."""

    def __init__(self, config):
        super().__init__(config)
        d = config.hidden_size
        KERNELS["fla"] = config.fla_kernels
        self.embedding = nn.Embedding(config.vocab_size, d)
        self.meta = nn.Parameter(torch.empty(config.meta_tokens, d)) if config.meta_tokens else None
        self.layers = nn.ModuleList(Block(d, layer) for layer in config.layers)
        self.final_norm = RMSNorm(d)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def set_input_embeddings(self, value):
        self.embedding = value

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, cache=None, past_key_values=None,
                use_cache=None, output_hidden_states=None, return_dict=None, **_):
        """Tokens [B, T], or their embeddings; `attention_mask` is 0 in the padding, [B, all tokens so far]."""
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        b, t, _ = x.shape
        memory = cache if cache is not None else past_key_values
        if not isinstance(memory, Memory):
            keep = use_cache if use_cache is not None else self.config.use_cache and not self.training
            memory = Memory(len(self.layers)) if keep else None
        x, place, before = self.placed(x, attention_mask, memory)
        place.balance = [] if self.training else None
        states = [x[:, before:]]
        for index, layer in enumerate(self.layers):
            x = layer(x, place, memory.layers[index] if memory is not None else None)
            states.append(x[:, before:])
        if memory is not None:
            memory.tokens += t
        hidden = tuple(states) if output_hidden_states else None
        x = self.final_norm(x[:, before:])
        balance = sum(place.balance) if place.balance else None
        return ModelWithMemory(last_hidden_state=x, cache=memory, hidden_states=hidden, balance=balance)

    def placed(self, x, attention_mask, memory):
        """x with the meta tokens where its sequences begin, its place, and how many positions that put before x."""
        b, t, d = x.shape
        meta = 0 if self.meta is None else self.meta.shape[0]
        seen = 0 if memory is None else memory.tokens
        if seen:
            return x, Place(meta + seen, memory.padding, None), 0
        padding = None
        if attention_mask is not None and attention_mask.dim() == 2:
            mask = attention_mask[:, -t:].to(x.device) != 0
            padding = None if bool(mask.all()) else (mask.cumsum(1) == 0).sum(1)
        if memory is not None:
            memory.padding = padding
        if meta:
            x = torch.cat([self.meta.to(x.dtype).expand(b, -1, -1), x], 1)
        if padding is None:
            return x, Place(0, None, None), meta
        if meta:  # the padding, then the meta tokens, then the text
            at = torch.arange(meta + t, device=x.device)[None]
            start = padding[:, None]
            source = torch.where(at < start, at + meta, torch.where(at < start + meta, at - start, at))
            x = x.gather(1, source[..., None].expand(-1, -1, d))
            mask = torch.cat([mask.new_ones(b, meta), mask], 1).gather(1, source)
        return x, Place(0, padding, mask), meta


class DeltafrontForCausalLM(DeltafrontPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"head.weight": "model.embedding.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = DeltafrontModel(config)
        self.head = Matrix(config.hidden_size, config.vocab_size, "head")
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embedding

    def set_input_embeddings(self, value):
        self.model.embedding = value

    def get_output_embeddings(self):
        return self.head

    def set_output_embeddings(self, value):
        self.head = value

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, cache=None,
                past_key_values=None, use_cache=None, output_hidden_states=None, return_dict=None, logits_to_keep=0,
                **rest):
        """Logits [B, T, vocabulary] of the token after each; `labels` are the tokens themselves, -100 where not asked."""
        out = self.model(input_ids, attention_mask, inputs_embeds, cache, past_key_values, use_cache,
                         output_hidden_states)
        hidden = out.last_hidden_state
        if isinstance(logits_to_keep, int):
            hidden = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        else:
            hidden = hidden[:, logits_to_keep]
        if self.config.logits_divided_by_head_norms:
            weight = self.head.weight
            logits = F.linear(hidden, weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-30))
        else:
            logits = self.head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **rest)
            if out.balance is not None:  # in training alone
                loss = loss + BALANCE * out.balance
        out = CausalLMWithMemory(loss=loss, logits=logits, cache=out.cache, hidden_states=out.hidden_states,
                                 balance=out.balance)
        return out if return_dict is not False else out.to_tuple()

    # The model makes its own memory; what `generate` knows of caches does not fit a stack of several kinds.
    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    def prepare_inputs_for_generation(self, input_ids, cache=None, past_key_values=None, attention_mask=None,
                                      inputs_embeds=None, use_cache=True, logits_to_keep=None, **_):
        memory = cache if cache is not None else past_key_values
        inputs = {"attention_mask": attention_mask, "cache": memory, "use_cache": use_cache}
        inputs["logits_to_keep"] = 1 if logits_to_keep is None else logits_to_keep
        if memory is not None and memory.tokens:
            return {**inputs, "input_ids": input_ids[:, -1:] if inputs_embeds is not None else input_ids[:, memory.tokens:]}
        if inputs_embeds is not None:
            return {**inputs, "inputs_embeds": inputs_embeds}
        return {**inputs, "input_ids": input_ids}

    def _update_model_kwargs_for_generation(self, outputs, model_kwargs, *arguments, **rest):
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *arguments, **rest)
        model_kwargs["cache"] = outputs.cache
        return model_kwargs
