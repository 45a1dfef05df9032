//! Which machine this is, and how much of it others use while we measure. Reads /proc.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::support::kafka::Kafka;

/// The machine and what was installed on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub system: String,
    pub rustc: String,
    pub java: String,
}

impl Machine {
    pub fn here() -> Machine {
        Machine {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib("/proc/meminfo", "MemTotal").unwrap_or(0).div_ceil(1024 * 1024),
            system: said("uname", &["-sr"]),
            rustc: said("rustc", &["--version"]),
            java: said("java", &["-version"]),
        }
    }
}

/// The first line that a program prints, on whichever output.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = std::process::Command::new(program).args(arguments).output() else { return "?".to_owned() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or("?").to_owned()
}

/// `NAME: VALUE` of a file of /proc.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|found| found.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A field that is given in kB.
fn kib(path: &str, name: &str) -> Option<u64> {
    field(path, name)?.split_whitespace().next()?.parse().ok()
}

/// Resident memory of a process now, in MiB.
pub fn resident_mib(pid: i32) -> f64 {
    let path = format!("/proc/{pid}/status");
    let kib = kib(&path, "VmRSS").unwrap_or_else(|| panic!("{path} does not say what is resident"));
    kib as f64 / 1024.0
}

/// The CPU time of the whole machine and of us, at one moment.
pub struct Busy {
    at: Instant,
    machine: Duration,
    ours: Duration,
}

impl Busy {
    pub fn now(kafka: &Kafka) -> Busy {
        Busy { at: Instant::now(), machine: machine_time(), ours: our_time() + kafka.cpu_now().unwrap_or_default() }
    }

    /// How many cores others kept busy since then. (Our children count once they have ended.)
    pub fn others_since(&self, kafka: &Kafka) -> f64 {
        let now = Busy::now(kafka);
        let others = now.machine.saturating_sub(self.machine).saturating_sub(now.ours.saturating_sub(self.ours));
        others.as_secs_f64() / now.at.duration_since(self.at).as_secs_f64().max(0.001)
    }
}

/// What all cores did but idle and wait, since the start.
fn machine_time() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|place| numbers.get(*place)).sum();
    // SAFETY: a plain question.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1).unsigned_abs();
    Duration::from_secs_f64(busy as f64 / per_second as f64)
}

fn our_time() -> Duration {
    let of = |who| {
        // SAFETY: writes to the local.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &raw mut usage);
            usage
        };
        let time = |time: libc::timeval| {
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_usec).unwrap_or(0) * 1000)
        };
        time(usage.ru_utime) + time(usage.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

/// The commit of this repository, marked when files differ from it.
pub fn revision() -> String {
    let git = |arguments: &[&str]| said("git", &[&["-C", env!("CARGO_MANIFEST_DIR")], arguments].concat());
    git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

/// The date in UTC, as 2026-11-21.
pub fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() / 86_400;
    // Days from 0000-03-01, in eras of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
