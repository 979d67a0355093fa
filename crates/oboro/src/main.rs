//! The `oboro` command.
fn main() {}
