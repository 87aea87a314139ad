//! `trueup-gateway`: the public door.
fn main() {}
