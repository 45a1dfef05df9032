//! Microbenchmarks: codec, crossing, offset tracker, batcher, partitioner; time for a burst of 256 records of 100 B.
//!
//! `cargo bench --bench micro`. What they take in instructions, which does not depend on the machine's noise, is kept by
//! `instructions`.

#[path = "shared/crossing.rs"]
mod crossing;
#[path = "shared/pieces.rs"]
mod pieces;
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("burst of 256");
    group.throughput(Throughput::Elements(pieces::BURST as u64));
    for piece in pieces::PIECES {
        let mut work = (piece.make)();
        group.bench_function(piece.name, |bencher| bencher.iter(&mut work));
    }
    let mut crossing = crossing::Crossing::new();
    group.bench_function("crossing", |bencher| bencher.iter(|| black_box(crossing.burst())));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = pieces
}
criterion_main!(benches);
