//! What a crash costs: the time until every partition goes on, and the work that is done again.

use super::Rules;
use super::tally::Tally;
use super::verdict::{Recovery, Verdict};

/// What was on its way at a crash may still arrive, milliseconds: that is no recovery.
const ON_ITS_WAY: i64 = 500;

/// Measures every crash by the outcomes that were new after it.
pub fn measure(tally: &Tally, rules: &Rules, verdict: &mut Verdict) {
    let progress: Vec<Vec<i64>> = tally
        .partitions
        .values()
        .map(|records| {
            let mut times: Vec<i64> = records.iter().filter_map(|record| record.done_at()).collect();
            times.retain(|at| *at < i64::MAX);
            times.sort_unstable();
            times
        })
        .collect();
    let mut seconds: Vec<f64> = Vec::new();
    for crash in &rules.crashes {
        // A partition that has nothing more to do has recovered; one that was added later had nothing to recover from.
        let there = progress.iter().filter(|times| times.first().is_some_and(|first| *first < crash.at));
        let next = there.filter_map(|times| {
            times.get(times.partition_point(|at| *at < crash.at + ON_ITS_WAY)).map(|next| next - crash.at)
        });
        seconds.extend(next.max().map(|milliseconds| milliseconds as f64 / 1000.0));
    }
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds.get(((seconds.len() as f64 * share) as usize).min(seconds.len().saturating_sub(1)));
    verdict.recovery = Recovery {
        median: at(0.5).copied().unwrap_or_default(),
        p99: at(0.99).copied().unwrap_or_default(),
        longest: seconds.last().copied().unwrap_or_default(),
    };
    let mut repeated = vec![0; rules.crashes.len() + 1];
    for at in &tally.repeats {
        repeated[rules.crashes.partition_point(|crash| crash.at <= *at)] += 1;
    }
    verdict.repeated_by_one = repeated.into_iter().max().unwrap_or_default();
}
