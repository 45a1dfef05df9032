//! The program `sluicebox`.

fn main() -> std::process::ExitCode {
    sluicebox::cli::main().into()
}
