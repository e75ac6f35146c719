//! swarmlite
fn main() {}
