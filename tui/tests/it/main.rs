//! The screens and reports of the program, on campaigns with fixed numbers.

mod axis;
mod drawing;
mod plot;
mod program;
mod quantity;
mod sample;
mod screens;
mod update;
