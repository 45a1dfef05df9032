//! The program `sluicebox`, and its allocator.

/// Records are allocated by librdkafka's threads and freed by ours, and the other way round, headers piece by piece: the C
/// library's allocator spends a fifth of the I/O thread on that. The crate is built so that it serves librdkafka's
/// `malloc` as well as Rust.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sluicebox::cli::main().into()
}
