//! Workspace checks.
fn main() {}
