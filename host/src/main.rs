//! The program `sluicebox`.

fn main() {}
