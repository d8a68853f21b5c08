//! The `sae` tool.
fn main() {}
