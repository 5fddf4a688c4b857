//! The kernels against their definitions, and the definitions against each other.

#![expect(
    clippy::inline_always,
    reason = "kernel bodies must be inlined into the function that enables instructions"
)]

mod attention_training;
mod cpu_families;
mod cpu_prefill;
mod cpu_products;
mod cuda_attention;
mod cuda_chunked;
mod cuda_compile;
mod cuda_gated_conv;
mod cuda_kda;
mod cuda_limits;
mod cuda_phases;
mod cuda_rope;
mod cuda_rows;
mod cuda_step;
mod definitions;
mod delta_rule_training;
mod elementwise_training;
mod gated_conv;
mod kda;
mod kda_training;
mod linear_attention_training;
mod linear_training;
mod log_linear_training;
mod moe;
mod newton_schulz;
mod random;
mod rows_training;
mod subnormals;
