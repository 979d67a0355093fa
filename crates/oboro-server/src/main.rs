//! The binary `oboro-server`.

fn main() {}
