//! Runs oblivious code on marked secrets.
fn main() {}
