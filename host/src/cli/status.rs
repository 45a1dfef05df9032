//! `sluicebox status`: what pipelines of running hosts do, and why one does not.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::args::{OutputForm, StatusArgs};
use super::exit::Exit;
use super::remote::{Refusal, Remote, remotes, shown};
use crate::admin::view::{PartitionList, PartitionView, PipelineList, PipelineView, Why, short};

/// A host with what it said.
struct Asked {
    url: String,
    pipelines: Vec<(PipelineView, Vec<PartitionView>)>,
}

/// Runs the command.
pub(super) fn run(args: &StatusArgs, form: OutputForm, data: &mut dyn Write, talk: &mut dyn Write) -> io::Result<Exit> {
    let hosts = match remotes(&args.remote) {
        Ok(hosts) => hosts,
        Err(refusal) => {
            talk.write_all(refusal.text().as_bytes())?;
            return Ok(refusal.exit);
        }
    };
    let mut asked = Vec::new();
    let mut exit = Exit::Ok;
    for host in &hosts {
        match ask(host, args) {
            Ok(pipelines) => asked.push(Asked { url: host.url.clone(), pipelines }),
            Err(refusal) => {
                talk.write_all(refusal.text().as_bytes())?;
                exit = refusal.exit;
            }
        }
    }
    match form {
        OutputForm::Json => writeln!(data, "{:#}", as_json(&asked))?,
        OutputForm::Text => {
            let several = hosts.len() > 1;
            for Asked { url, pipelines } in &asked {
                for (pipeline, partitions) in pipelines {
                    let place = several.then_some(url.as_str());
                    data.write_all(text(pipeline, partitions, place, args.why).as_bytes())?;
                }
            }
        }
    }
    Ok(exit)
}

fn ask(host: &Remote, args: &StatusArgs) -> Result<Vec<(PipelineView, Vec<PartitionView>)>, Refusal> {
    let views = match &args.name {
        Some(name) => vec![host.get(&format!("/v1/pipelines/{name}"))?],
        None => host.get::<PipelineList>("/v1/pipelines")?.pipelines,
    };
    let with_partitions = |view: PipelineView| {
        let partitions = match args.partitions {
            true => host.get::<PartitionList>(&format!("/v1/pipelines/{}/partitions", view.name))?.partitions,
            false => Vec::new(),
        };
        Ok((view, partitions))
    };
    views.into_iter().map(with_partitions).collect()
}

fn as_json(asked: &[Asked]) -> Value {
    let pipeline = |(view, partitions): &(PipelineView, Vec<PartitionView>)| {
        let mut value = json!(view);
        if !partitions.is_empty() {
            value["partition_list"] = json!(partitions);
        }
        value
    };
    let host = |asked: &Asked| {
        let pipelines: Vec<Value> = asked.pipelines.iter().map(pipeline).collect();
        json!({ "host": asked.url, "pipelines": pipelines })
    };
    json!({ "hosts": asked.iter().map(host).collect::<Vec<_>>() })
}

/// A pipeline: one line, its partitions, and what is wrong: the first thing, or all of them.
fn text(view: &PipelineView, partitions: &[PartitionView], host: Option<&str>, all: bool) -> String {
    let mut text = format!("{}  {}   {}", view.name, state(view), short(&view.version));
    let counts = &view.partitions;
    _ = write!(text, "   partitions {}   lag {}", number(counts.assigned as u64), number(view.lag));
    _ = write!(text, "   in flight {}   done {}", number(view.in_flight), number(view.records.settled));
    for (count, what) in [(view.records.dead_lettered, "dead-lettered"), (view.records.dropped, "dropped")] {
        if count > 0 {
            _ = write!(text, "   {what} {}", number(count));
        }
    }
    if let Some(host) = host {
        _ = write!(text, "   {host}");
    }
    text.push('\n');
    if let Some(swap) = view.swap.as_ref().filter(|swap| swap.is_under_way()) {
        _ = writeln!(text, "  {}", shown(&swap.in_words()));
    }
    text.push_str(&table(partitions));
    let listed = if all { view.why.len() } else { view.why.len().min(1) };
    for why in &view.why[..listed] {
        text.push_str(&explained(why));
    }
    let more = (view.why.len() - listed) as u64 + view.unlisted;
    if more > 0 {
        let see = if all { "" } else { ": sluicebox status --why" };
        _ = writeln!(text, "  and {} more{see}", number(more));
    }
    text
}

/// The state, as one looks for it.
fn state(view: &PipelineView) -> String {
    let counts = &view.partitions;
    match view.state.as_str() {
        "running" if counts.blocked > 0 => format!("BLOCKED {}/{}", counts.blocked, counts.assigned),
        "running" if counts.stalled > 0 => format!("STALLED {}/{}", counts.stalled, counts.assigned),
        state => state.to_uppercase(),
    }
}

fn explained(why: &Why) -> String {
    let mut text = String::from("  ");
    if let Some(partition) = &why.partition {
        _ = write!(text, "{}  ", shown(partition));
    }
    _ = write!(text, "{}", why.cause);
    if let Some(seconds) = why.seconds {
        _ = write!(text, " for {seconds} s");
    }
    _ = writeln!(text, ": {}", shown(&why.reason));
    if !why.next.is_empty() {
        _ = writeln!(text, "  next: {}", why.next.join("   |   "));
    }
    text
}

fn table(partitions: &[PartitionView]) -> String {
    if partitions.is_empty() {
        return String::new();
    }
    let unknown = || "?".to_owned();
    let offset = |offset: Option<i64>| {
        offset.map_or_else(unknown, |offset| u64::try_from(offset).map_or_else(|_| offset.to_string(), number))
    };
    let row = |partition: &PartitionView| {
        let why = match (&partition.reason, partition.stalled_seconds) {
            (Some(reason), Some(seconds)) => format!("{} (for {seconds} s)", shown(reason)),
            (Some(reason), None) => shown(reason),
            (None, _) => String::new(),
        };
        [
            format!("{}[{}]", shown(&partition.topic), partition.partition),
            partition.state.clone(),
            offset(partition.committed),
            number(partition.open),
            partition.lag.map_or_else(unknown, number),
            why,
        ]
    };
    let head = ["PARTITION", "STATE", "COMMITTED", "OPEN", "LAG", "WHY"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(partitions.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for [partition, state, committed, open, lag, why] in &rows {
        let [a, b, c, d, e] = widths;
        let line = format!("  {partition:a$}  {state:b$}  {committed:>c$}  {open:>d$}  {lag:>e$}  {why}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// With commas, as people read it.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::{PartitionCounts, RecordCounts};

    fn view() -> PipelineView {
        let why = |partition: Option<&str>, cause: &str| Why {
            partition: partition.map(str::to_owned),
            cause: cause.to_owned(),
            reason: "because\nof it".to_owned(),
            seconds: partition.map(|_| 48),
            next: vec!["sluicebox a".to_owned(), "sluicebox b".to_owned()],
        };
        PipelineView {
            name: "orders".to_owned(),
            version: "0123456789abcdef".to_owned(),
            state: "running".to_owned(),
            partitions: PartitionCounts { assigned: 12, blocked: 1, stalled: 2, ..PartitionCounts::default() },
            lag: 1204,
            in_flight: 3,
            records: RecordCounts { settled: 1_234_567, dead_lettered: 5, ..RecordCounts::default() },
            why: vec![why(Some("orders[7]"), "blocked"), why(None, "waiting")],
            unlisted: 4,
            ..PipelineView::default()
        }
    }

    #[test]
    fn a_pipeline_is_a_line_with_the_first_reason() {
        let line = "orders  BLOCKED 1/12   0123456789ab   partitions 12   lag 1,204   in flight 3   done 1,234,567   \
                    dead-lettered 5\n";
        let first = "  orders[7]  blocked for 48 s: because of it\n  next: sluicebox a   |   sluicebox b\n";
        let rest = "  and 5 more: sluicebox status --why\n";
        assert_eq!(text(&view(), &[], None, false), format!("{line}{first}{rest}"));
        let second = "  waiting: because of it\n  next: sluicebox a   |   sluicebox b\n  and 4 more\n";
        assert_eq!(text(&view(), &[], None, true), format!("{line}{first}{second}"));
        assert!(text(&view(), &[], Some("http://h:1"), true).contains("dead-lettered 5   http://h:1\n"));
    }

    #[test]
    fn states_are_seen_at_a_glance() {
        let of = |name: &str, blocked, stalled| {
            let partitions = PartitionCounts { assigned: 3, blocked, stalled, ..PartitionCounts::default() };
            state(&PipelineView { state: name.to_owned(), partitions, ..PipelineView::default() })
        };
        assert_eq!(of("running", 0, 0), "RUNNING");
        assert_eq!(of("running", 2, 1), "BLOCKED 2/3");
        assert_eq!(of("running", 0, 1), "STALLED 1/3");
        assert_eq!(of("paused", 2, 0), "PAUSED");
    }

    #[test]
    fn partitions_are_a_table() {
        let partition = |number, state: &str, committed, reason: Option<&str>| PartitionView {
            topic: "orders".to_owned(),
            partition: number,
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
            committed,
            open: 1,
            stalled_seconds: reason.map(|_| 75),
            ..PartitionView::default()
        };
        let rows = [partition(7, "running", None, None), partition(10, "blocked", Some(881_204), Some("bad"))];
        let expected = "  PARTITION   STATE    COMMITTED  OPEN  LAG  WHY
  orders[7]   running          ?     1    ?
  orders[10]  blocked    881,204     1    ?  bad (for 75 s)
";
        assert_eq!(table(&rows), expected);
    }

    #[test]
    fn numbers_have_commas() {
        let written = [0, 999, 1_000, 12_345_678].map(number);
        assert_eq!(written, ["0", "999", "1,000", "12,345,678"]);
    }
}
