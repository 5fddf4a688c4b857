"""The config of this folder for SGLang, which imports it before anything else in each of its processes: what it registers
there stands in deltafront_sglang/config.py, so this folder has to be on PYTHONPATH."""

from deltafront_sglang.config import ServedConfig

__all__ = ["ServedConfig"]
