//! The screens and reports of the program, on campaigns with fixed numbers.

#[expect(dead_code, reason = "shared with the example, each uses a part")]
mod sample;
