//! Deterministic handlers: what else would differ between two runs over the same records comes from the record. The wall
//! clock is its timestamp, random numbers are made from its topic, partition and offset, the monotonic clock stands still.
//! (Bursts of one are the lane's; one form of NaN is the compiler's.)

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand_core::TryRng;
use sha2::{Digest as _, Sha256};
use sluicebox_frames::Message;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// What a handler's language seeds its hash tables by, once per instance.
const SEED: u128 = 0x736c_7569_6365_626f_785f_7365_6564;

/// The record that an instance is called for. Written before a call, read in it, by the same thread; atomics because both of
/// its generators and its clock hold on to it.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Milliseconds since 1970.
    time: AtomicU64,
    /// State of the generator of random numbers.
    random: AtomicU64,
}

impl Replay {
    /// The next call is about this message.
    pub(super) fn begin(&self, message: &Message<'_>) {
        self.time.store(message.timestamp().try_into().unwrap_or(0), Ordering::Relaxed);
        let source = message.source();
        let mut hasher = Sha256::new();
        hasher.update(source.partition.to_le_bytes());
        hasher.update(message.offset().to_le_bytes());
        hasher.update(source.topic);
        let digest = hasher.finalize();
        let seed = digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        self.random.store(seed, Ordering::Relaxed);
    }

    /// Puts its clocks and generators in place of the host's.
    pub(super) fn configure(self: &Arc<Self>, context: &mut WasiCtxBuilder) {
        context
            .wall_clock(RecordClock(Arc::clone(self)))
            .monotonic_clock(StandingClock)
            .secure_random(RecordRandom(Arc::clone(self)))
            .insecure_random(RecordRandom(Arc::clone(self)))
            .insecure_random_seed(SEED);
    }
}

struct RecordClock(Arc<Replay>);

impl HostWallClock for RecordClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.time.load(Ordering::Relaxed))
    }
}

struct StandingClock;

impl HostMonotonicClock for StandingClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// SplitMix64: nothing that is secret is made of it.
struct RecordRandom(Arc<Replay>);

impl TryRng for RecordRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| (number >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(mixed ^ (mixed >> 31))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for part in bytes.chunks_mut(8) {
            let random = self.try_next_u64()?.to_le_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng as _;
    use sluicebox_frames::{Frame, Headers, Messages, MessagesWriter, NewMessage, Source, TimestampType};

    #[test]
    fn numbers_and_time_are_the_records() {
        let numbers = |topic: &str, partition: u32, offset: i64, timestamp: i64| {
            let mut frame = Frame::default();
            let mut writer = MessagesWriter::burst(&mut frame, Source { topic, partition }, 1, false);
            let timestamp_type = TimestampType::CreateTime;
            let (key, value, attempt, source) = (None, None, 1, 0);
            let message = NewMessage { offset, timestamp, timestamp_type, key, value, attempt, source };
            writer.push(&message, Headers::default());
            writer.finish();
            let replay = Arc::new(Replay::default());
            replay.begin(&Messages::new(&frame).get(0));
            let mut bytes = [0; 5];
            RecordRandom(Arc::clone(&replay)).fill_bytes(&mut bytes);
            (RecordRandom(Arc::clone(&replay)).next_u64(), bytes, RecordClock(replay).now().as_millis())
        };
        let one = numbers("orders", 4, 17, 1_000);
        assert_eq!(one, numbers("orders", 4, 17, 1_000));
        let others = [numbers("orders", 4, 18, 1_000), numbers("orders", 5, 17, 1_000), numbers("order", 4, 17, 1_000)];
        assert!(others.iter().all(|other| other.0 != one.0 && other.1 != one.1), "{one:?} {others:?}");
        assert_eq!((one.2, numbers("orders", 4, 17, -1).2), (1_000, 0));
    }
}
