//! Instructions per record of the pieces of the hot path, counted by valgrind's callgrind, against the figures that are kept
//! in `instructions.toml`. Fails when one grows by more than 5 % and the file was not changed with it.
//!
//! `cargo bench --bench instructions` compares; `-- --write` writes the file. It needs valgrind.
//!
//! This program runs itself under valgrind, twice for each piece: with few and with many bursts. The difference is the
//! pieces' own, without start and end of the program. Calls of the guest are not among them: compiled at run time, they
//! are hardly valgrind's.

#[path = "shared/pieces.rs"]
mod pieces;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::Deserialize;

use pieces::{BURST, PIECES, Piece};

/// More than this much growth fails.
const TOLERANCE: f64 = 0.05;
/// Bursts of the two runs: past what grows at the beginning, and enough more that a burst's noise vanishes.
const FEW: usize = 100;
const MANY: usize = 600;
/// The C library has copies of its own for each generation of processors; these are the ones that all have.
const PLAIN_COPIES: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2_Usable,-AVX2,-AVX512F,-AVX512VL,-EVEX,-ERMS,-FSRM,-Prefer_No_VZEROUPPER",
);

/// The file.
#[derive(Debug, Deserialize)]
struct Kept {
    architecture: String,
    rustc: String,
    /// Instructions per record.
    per_record: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", piece, bursts] => run(piece, bursts),
        [] => compare(),
        ["--write"] => write(),
        _ => Err(format!("cargo bench --bench instructions -- [--write], not {arguments:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What runs under valgrind.
fn run(name: &str, bursts: &str) -> Result<(), String> {
    let piece = PIECES.iter().find(|piece| piece.name == name).ok_or_else(|| format!("there is no piece {name}"))?;
    let bursts: usize = bursts.parse().map_err(|_| format!("{bursts:?} is no number"))?;
    let mut work = (piece.make)();
    (0..bursts).for_each(|_| work());
    Ok(())
}

fn compare() -> Result<(), String> {
    let path = file();
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let kept: Kept = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if kept.architecture != std::env::consts::ARCH {
        let (there, here) = (kept.architecture, std::env::consts::ARCH);
        return not_compared(&format!("the figures kept are of {there}, this machine is {here}"));
    }
    let counted = count_all()?;
    let mut grown = Vec::new();
    for (name, now) in &counted {
        let before = kept.per_record.get(name);
        let change = before.map_or(0.0, |before| now / before - 1.0);
        let verdict = match before {
            None => "NEW: not in the file",
            Some(_) if change > TOLERANCE => "GROWN",
            Some(_) if change < -TOLERANCE => "less: worth writing down",
            Some(_) => "",
        };
        let was = before.map_or("-".to_owned(), |before| format!("{before:.1}"));
        println!("{name:<16} {now:>8.1} instructions/record, {was:>8} kept, {:>+6.1} %  {verdict}", 100.0 * change);
        if before.is_none() || change > TOLERANCE {
            grown.push(name.as_str());
        }
    }
    if let Some(gone) = kept.per_record.keys().find(|name| !counted.contains_key(*name)) {
        return Err(format!("{} has {gone}, which is no piece any more", path.display()));
    }
    if grown.is_empty() {
        return Ok(());
    }
    let compiler = rustc();
    let note =
        if kept.rustc == compiler { String::new() } else { format!(" (kept with {}, this is {compiler})", kept.rustc) };
    Err(format!(
        "more than {:.0} % above the figures kept{note}: {}. If it is worth it, write them down in the same commit: cargo \
         bench --bench instructions -- --write",
        100.0 * TOLERANCE,
        grown.join(", ")
    ))
}

/// Says so where `.ci/run` looks for what did not run, too.
fn not_compared(why: &str) -> Result<(), String> {
    println!("NOT COMPARED: {why}");
    let list = scratch().with_file_name("not-run.txt");
    let mut lines = std::fs::read_to_string(&list).unwrap_or_default();
    lines += &format!("NOT COMPARED: instructions of the hot path: {why}\n");
    std::fs::write(&list, lines).map_err(|error| format!("{}: {error}", list.display()))
}

fn write() -> Result<(), String> {
    let mut text = format!(
        "# Instructions per record of the hot path, by `cargo bench --bench instructions -- --write`. A change that makes one\n\
         # grow by more than 5 % changes this file, too, and says why.\n\
         architecture = {:?}\nrustc = {:?}\n\n[per_record]\n",
        std::env::consts::ARCH,
        rustc()
    );
    for (name, count) in count_all()? {
        println!("{name:<16} {count:>8.1} instructions/record");
        writeln!(text, "{name} = {count:.1}").expect("text");
    }
    let path = file();
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

fn count_all() -> Result<BTreeMap<String, f64>, String> {
    PIECES.iter().map(|piece| Ok((piece.name.to_owned(), per_record(piece)?))).collect()
}

fn per_record(piece: &Piece) -> Result<f64, String> {
    let (few, many) = (count(piece, FEW)?, count(piece, MANY)?);
    Ok((many - few) as f64 / ((MANY - FEW) * BURST) as f64)
}

/// Instructions of a whole run.
fn count(piece: &Piece, bursts: usize) -> Result<i64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = scratch().join(format!("callgrind.{}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--error-exitcode=1"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind.arg(this).args(["run", piece.name, &bursts.to_string()]);
    valgrind.env(PLAIN_COPIES.0, PLAIN_COPIES.1);
    let output = valgrind.output().map_err(|error| format!("valgrind cannot be run ({error}): install it"))?;
    std::fs::remove_file(&profile).ok();
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind: {}\n{text}", output.status));
    }
    // "==123== Collected : 4567"
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    line.and_then(|(_, count)| count.trim().parse().ok()).ok_or_else(|| format!("valgrind did not count:\n{text}"))
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or("?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml")
}

fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}
