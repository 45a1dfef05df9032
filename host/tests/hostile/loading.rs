//! The rows about files that should never get to run.

use std::time::{Duration, Instant};

use sluicebox::plugin::{Compiler, LoadError, LoadRules, Runtime, Version};

use crate::beside::alone;
use crate::plugin_support::{guest, runtime};

/// A component that does nothing but import an interface of this name.
fn importing(interface: &str) -> Vec<u8> {
    let name = interface.as_bytes();
    let import = [&[1, 0, name.len() as u8][..], name, &[5, 0]].concat();
    // An empty instance type, and the import of an instance of it.
    [b"\0asm\x0d\0\x01\0", &[7, 3, 1, 0x42, 0][..], &[10, import.len() as u8], &import].concat()
}

/// Proves: of what WASI has for files, sockets, names and HTTP, nothing is linked in any version, and the error names what the
/// plugin wants.
#[test]
fn f11_every_import_that_is_not_granted_is_named() {
    let _alone = alone();
    let interfaces = [
        "wasi:filesystem/types",
        "wasi:filesystem/preopens",
        "wasi:sockets/network",
        "wasi:sockets/instance-network",
        "wasi:sockets/tcp",
        "wasi:sockets/tcp-create-socket",
        "wasi:sockets/udp",
        "wasi:sockets/udp-create-socket",
        "wasi:sockets/ip-name-lookup",
        "wasi:http/types",
        "wasi:http/outgoing-handler",
        "wasi:http/incoming-handler",
        "wasi:config/store",
        "wasi:keyvalue/store",
        "wasi:cli/run",
        "wasi:nn/inference",
        "sluicebox:plugin/secrets",
        "acme:own/thing",
    ];
    for interface in interfaces {
        for version in ["0.2.0", "0.2.9", "0.1.0", "0.3.0", "1.0.0"] {
            let full = format!("{interface}@{version}");
            let error = Version::load(runtime(), &importing(&full), &LoadRules::default()).expect_err(&full);
            let LoadError::WrongWorld { problems, .. } = &error else { panic!("{full}: {error}") };
            // Another version of our own package is told apart by interface and package.
            let (package, name) = interface.split_once('/').expect("package/interface");
            let named =
                |problem: &String| problem.contains(&full) || problem.contains(&format!("{name} of {package}@"));
            assert!(problems.iter().any(named), "{full}: {problems:?}");
            let advice = match package_of(interface) {
                "wasi:filesystem" => "files are never granted",
                "wasi:sockets" => "sockets and name lookup are never granted",
                "acme:own" => "this host has no acme:own/thing, and nothing grants it",
                _ => "",
            };
            assert!(problems.iter().any(|problem| problem.contains(advice)), "{full}: {problems:?}");
        }
    }
}

fn package_of(interface: &str) -> &str {
    interface.split_once('/').map_or("", |(package, _)| package)
}

/// Goal: no file makes the loader panic, hang or load. Method: a component cut at 64 points, with one bit changed at 100,000
/// places, and what is none. A change may leave a component that loads; then it is one.
#[test]
fn f12_broken_files_are_refused() {
    let _alone = alone();
    // No children: it is the checks of this process that are asked, a hundred thousand times.
    let here = Runtime::new(Compiler::in_this_process(), None).expect("an engine");
    let load = |bytes: &[u8]| Version::load(&here, bytes, &LoadRules::default());
    let whole = guest("raw-nothing");
    for point in 0..64 {
        let error = load(&whole[..whole.len() * point / 64]).expect_err("it ends too early");
        assert!(matches!(error, LoadError::Truncated { .. } | LoadError::NotWasm { .. }), "{point}: {error}");
    }
    for none in [&b""[..], b"plain text", b"\x1f\x8b\x08\0\0\0\0\0", b"\0asm\x01\0\0\0", &[0x55; 4096]] {
        load(none).expect_err("no component");
    }

    let small = small();
    assert!(load(&small).expect_err("it handles nothing").to_string().contains("neither messages nor batches"));
    let (begin, mut slowest) = (Instant::now(), Duration::ZERO);
    let mut state = 0x0005_eed5_u64;
    for flip in 0..100_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = small.clone();
        // Every bit once, then pairs of bits.
        let bits = small.len() * 8;
        let (first, second) = (flip % bits, (state >> 20) as usize % bits);
        bytes[first / 8] ^= 1 << (first % 8);
        if flip >= bits && first != second {
            bytes[second / 8] ^= 1 << (second % 8);
        }
        let began = Instant::now();
        let loaded = load(&bytes);
        slowest = slowest.max(began.elapsed());
        assert!(loaded.is_err(), "flip {flip}: a component that handles nothing");
    }
    println!("100,000 changed files in {:?}, the slowest in {slowest:?}", begin.elapsed());
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

/// Proves: random bytes are refused, also behind the beginning of a component and as sections of right lengths.
#[test]
fn f12_random_bytes_are_refused() {
    let _alone = alone();
    let here = Runtime::new(Compiler::in_this_process(), None).expect("an engine");
    let mut state = 0x00ab_5eed_u64;
    let mut random = |count: usize| -> Vec<u8> {
        let byte = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count).map(byte).collect()
    };
    for round in 0..20_000 {
        let length = usize::from(random(1)[0]);
        let bytes = random(length);
        let bytes = match round % 3 {
            0 => bytes,
            1 => [b"\0asm\x0d\0\x01\0", &bytes[..]].concat(),
            // Lengths up to 127 are one byte.
            _ => {
                let content = &bytes[..length.min(127)];
                [b"\0asm\x0d\0\x01\0", &[random(1)[0] % 13, content.len() as u8][..], content].concat()
            }
        };
        assert!(Version::load(&here, &bytes, &LoadRules::default()).is_err(), "round {round}");
    }
}

/// A small component that has most kinds of sections: a module with memory, table, data and code, an instance of it, a lifted
/// function, an export.
fn small() -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id, content.len() as u8], content].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 0, 1, 0x7f]),
        section(3, &[1, 0]),
        section(4, &[1, 0x70, 0, 1]),
        section(5, &[1, 0, 1]),
        section(7, &[2, 1, b'f', 0, 0, 1, b'm', 2, 0]),
        section(10, &[1, 7, 0, 0x41, 20, 0x41, 22, 0x6a, 0x0b]),
        section(11, &[1, 0, 0x41, 8, 0x0b, 2, b'h', b'i']),
    ]
    .concat();
    [
        b"\0asm\x0d\0\x01\0".to_vec(),
        section(1, &module),
        // An instance of the module, without arguments.
        section(2, &[1, 0, 0, 0]),
        // A function that gives a u32.
        section(7, &[1, 0x40, 0, 0, 0x79]),
        // The instance's `f`, and it lifted.
        section(6, &[1, 0, 0, 1, 0, 1, b'f']),
        section(8, &[1, 0, 0, 0, 0, 0]),
        section(11, &[1, 0, 1, b'f', 1, 0, 0]),
    ]
    .concat()
}
