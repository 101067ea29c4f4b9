//! The `dist` command.
fn main() {}
