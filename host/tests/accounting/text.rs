//! The text form of a transcript, as the reader writes it.

use crate::checker::transcript::{Commit, Ends, Kind, Place, Topics, Transcript};

fn parse(text: &str) -> Result<Transcript, String> {
    let [input, out, batched, dead] = ["in", "out", "batched", "dead"].map(str::to_owned);
    Transcript::parse(Topics { input, out, batched, dead }, text.as_bytes())
}

/// Proves: every line comes back as what it says, a dead letter by its own headers, escaped fields as they were.
#[test]
fn lines_are_read_as_they_are_meant() {
    let text = "members\t0\nends\tin\t0\t0\t5\t6\nends\tdead\t1\t0\t1\t1\ncommitted\t0\t5\ncommit\t0\t5\t77\nforgotten\t0\n\
                record\tin\t0\t4\t70\tdeadbeef\tkey\\t1\trun=r\tq=1\tseq=2\tkseq=3\tcrc=deadbeef\n\
                record\tout\t3\t9\t75\tbeef\tkey\trun=r\tq=1\tseq=2\tkseq=3\tcrc=beef\tsluicebox-source=in/0/4\t\
                sluicebox-epoch=12\tsluicebox-attempt=1\tsluicebox-version=d\tsluicebox-index=1\n\
                record\tdead\t3\t9\t76\tbeef\t\tsluicebox-error-topic=in\tsluicebox-error-partition=0\t\
                sluicebox-error-offset=4\tsluicebox-error-attempts=4\tsluicebox-error-version=d\n\
                record\tbatched\t0\t0\t76\t0\t\n\
                end\n";
    let transcript = parse(text).expect("a transcript");
    assert_eq!(transcript.input_ends[&0], Ends { start: 0, stable: 5, high: 6 });
    assert_eq!(transcript.output_ends[&(Kind::Dead, 1)].high, 1);
    assert_eq!(transcript.committed[&0], 5);
    let commits = [Commit { partition: 0, offset: Some(5), at: 77 }, Commit { partition: 0, offset: None, at: 0 }];
    assert_eq!(transcript.commits, commits);
    let input = transcript.inputs[&0][0].identity.clone().expect("an identity");
    assert_eq!((&*input.key, &*input.run, input.producer, input.seq, input.key_seq), ("key\t1", "r", 1, 2, 3));
    assert_eq!((input.crc, input.sum), (0xdead_beef, 0xdead_beef));
    let [out, dead, nobody] = transcript.outputs.as_slice() else { panic!("{:?}", transcript.outputs) };
    let stamp = out.stamp.clone().expect("a stamp");
    assert_eq!((stamp.source, stamp.epoch, stamp.index), (Place { partition: 0, offset: 4 }, Some(12), 1));
    let stamp = dead.stamp.clone().expect("its own headers");
    assert_eq!((&*stamp.topic, stamp.epoch, stamp.attempt), ("in", None, 4));
    assert!(nobody.identity.is_none() && nobody.stamp.is_none());
}

/// Proves: a transcript that breaks off, or holds what it cannot, is none.
#[test]
fn what_breaks_off_is_refused() {
    assert!(parse("members\t0\n").unwrap_err().contains("breaks off"));
    assert!(parse("members\tmany\nend\n").unwrap_err().contains("line 1"));
    assert!(parse("record\telsewhere\t0\t0\t0\t0\t\nend\n").unwrap_err().contains("line 1"));
}
