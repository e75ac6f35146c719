//! Fuzz targets beside the parsers: whatever comes in from outside is read here, bent in a thousand ways.
//!
//! **Owns** a small mutation fuzzer ([`mutate`], [`run`]) and the targets ([`targets::all`]): for each door a corpus of
//! honest inputs, a dictionary of words that matter there, and what must hold of any input at all (no panic, no more than
//! a second, no more than a gigabyte, no stack overflow, and what the target says beyond that).
//!
//! **Must never** be the reason why a crate opens its insides: targets use public surfaces, and where there is none a
//! `fuzzing` module of a few lines, hidden from the documentation.
//!
//! Why our own, and no libFuzzer: that needs a nightly compiler and a sanitizer runtime. This runs with the toolchain that
//! builds the product, without an extra tool, and an input is a function of (target, seed, iteration): a failure is replayed
//! from three numbers. The price is that it does not see coverage; the corpora and dictionaries make up for part of that.

#![forbid(unsafe_code)]
// The fuzzer measures and watches real processes; nothing here runs inside the product.
#![allow(clippy::disallowed_methods)]

pub mod cli;
pub mod dice;
pub mod mutate;
pub mod run;
pub mod targets;
