"""Serves a stack that deltafront chose by SGLang: the value of SGLANG_EXTERNAL_MODEL_PACKAGE.

`config.py` says which layers have a KV cache and what the others remember, `states.py` keeps that in SGLang's pool of states,
`model.py` runs the mixers of `modeling_deltafront.py` between SGLang's attention and its pools.
"""
