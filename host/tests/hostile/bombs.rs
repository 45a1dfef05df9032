//! Components that are made of too much: a hostile guest, and behind it modules and instances of them by the hundred.

use std::sync::Arc;

use sluicebox::plugin::{FaultClass, HandlerLimits, Instance, LoadRules, Version};

use crate::beside::{Peak, alone, beside};
use crate::plugin_support::{config, guest, leb, on_handler_thread, runtime};

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len() as u64), content].concat()
}

fn module(sections: &[u8]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0", sections].concat()
}

/// A module of one memory of so many pages.
fn memory(pages: u64) -> Vec<u8> {
    module(&section(5, &[&[1, 0][..], &leb(pages)].concat()))
}

/// A module of so many tables of so many elements each.
fn tables(count: u64, elements: u64) -> Vec<u8> {
    let table = [&[0x70, 0][..], &leb(elements)].concat();
    module(&section(4, &[leb(count), table.repeat(count as usize)].concat()))
}

/// Core modules at the top of a component.
fn core_modules(component: &[u8]) -> u64 {
    let (mut at, mut count) = (8, 0);
    while at < component.len() {
        let id = component[at];
        let (mut length, mut shift) = (0_usize, 0);
        at += 1;
        loop {
            let byte = component[at];
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        count += u64::from(id == 1);
        at += length;
    }
    count
}

/// A handler with one module more, and so many instances of that.
fn with_instances(module: &[u8], count: u64) -> Arc<Version> {
    let mut component = guest("raw-typed");
    // Of that module, without arguments.
    let instance = [&[0][..], &leb(core_modules(&component)), &[0]].concat();
    component.extend(section(1, module));
    component.extend(section(2, &[leb(count), instance.repeat(count as usize)].concat()));
    Version::load(runtime(), &component, &LoadRules::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// Goal: what a component is made of is bounded before any of it is there. Method: each kind of part by the hundred, or a few
/// large ones, behind a good handler; the fault names the limit, and the host's memory hardly grows meanwhile.
#[test]
fn f06_a_component_of_many_parts_is_refused() {
    let cases = {
        let _alone = alone();
        let cases = [
            (with_instances(&module(&[]), 500), "more than 64 core instances, its limit (`instances` in"),
            (with_instances(&memory(1), 20), "more than 8 memories, its limit (`memories` in"),
            (with_instances(&memory(1200), 1), "bytes of memory in all, its limit is 67108864"),
            (with_instances(&memory(400), 4), "bytes of memory in all, its limit is 67108864"),
            (with_instances(&tables(90, 1), 1), "more than 64 tables, its limit (`tables` in"),
            (
                with_instances(&tables(1, 9_000_000), 1),
                "table elements in all, its limit is 100000 (`table_elements` in",
            ),
        ];
        // What is kept per component comes with its first instance.
        let start = |version| on_handler_thread(Instance::start(version, &config(HandlerLimits::default(), "{}").0));
        cases.iter().for_each(|(version, expected)| drop(start(version).expect_err(expected)));
        cases
    };
    beside(async || {
        let peak = Peak::begin();
        for (version, expected) in &cases {
            let (config, _) = config(HandlerLimits::default(), "{}");
            for _ in 0..20 {
                let fault = Instance::start(version, &config).await.expect_err(expected);
                assert_eq!(fault.class, FaultClass::Memory, "{fault}");
                assert!(fault.text.contains(expected), "{fault}");
            }
        }
        peak.stayed_within(24);
    });
}
