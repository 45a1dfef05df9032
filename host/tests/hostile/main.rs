//! The catalogue of hostile handlers, F1 to F23: for each row what a handler could do to its host, and the tests that show
//! that it cannot. Here are those that need a hostile guest beside a healthy one; the rest stand where the rest of their
//! subject is.

#[path = "../plugin_support/mod.rs"]
mod plugin_support;

mod beside;
mod bombs;
mod loading;
mod long;
mod rows;
mod turns;

/// A row: its number in the catalogue, what it is about, and where it is tested, as `file::function`.
struct Row {
    number: usize,
    about: &'static str,
    tests: &'static [&'static str],
}

const fn row(number: usize, about: &'static str, tests: &'static [&'static str]) -> Row {
    Row { number, about, tests }
}

const CATALOGUE: [Row; 23] = [
    row(1, "traps, panics, exits", &["hostile/rows.rs::f01_crashes_end_their_call_only"]),
    row(
        2,
        "endless loops",
        &[
            "hostile/rows.rs::f02_a_loop_ends_at_its_deadline",
            "hostile/turns.rs::seven_that_burn_their_deadlines_cost_one_slice",
            "hostile/turns.rs::cpu_time_is_given_by_shares",
            "plugin_faults.rs::a_looping_instance_does_not_stop_the_others_of_its_thread",
        ],
    ),
    row(3, "long instructions on memory", &["hostile/rows.rs::f03_bulk_instructions_end_at_the_deadline"]),
    row(
        4,
        "waits without end",
        &["hostile/rows.rs::f04_a_wait_ends_at_the_wall_clock", "plugin_faults.rs::waiting_is_no_running_time"],
    ),
    row(5, "time that others took", &["hostile/rows.rs::f05_waiting_for_a_turn_is_not_billed"]),
    row(
        6,
        "memory without end",
        &[
            "hostile/rows.rs::f06_a_memory_bomb_is_refused",
            "hostile/bombs.rs::f06_a_component_of_many_parts_is_refused",
            "plugin_faults.rs::memory_up_to_the_limit_is_given_and_not_a_page_more",
            "plugin_faults.rs::what_a_component_is_made_of_is_limited",
        ],
    ),
    row(
        7,
        "recursion without end",
        &[
            "hostile/rows.rs::f07_recursion_ends_in_a_fault",
            "plugin_faults.rs::the_stack_is_as_large_as_the_limit_says",
        ],
    ),
    row(
        8,
        "answers that are too large, or lie about it",
        &[
            "hostile/rows.rs::f08_a_large_or_forged_answer_is_refused_unread",
            "hostile/rows.rs::f08_answers_of_millions_of_parts_are_refused",
            "plugin_faults.rs::an_answer_over_the_limit_is_refused_unread",
        ],
    ),
    row(
        9,
        "floods of lines",
        &[
            "hostile/rows.rs::f09_a_flood_of_lines_is_bounded_and_escaped",
            "plugin_faults.rs::the_log_is_limited_as_the_limits_say",
        ],
    ),
    row(
        10,
        "handles without end",
        &[
            "hostile/rows.rs::f10_handles_are_bounded",
            "plugin_faults.rs::handles_up_to_the_limit_are_given_and_not_one_more",
        ],
    ),
    row(
        11,
        "imports that are not granted",
        &[
            "hostile/loading.rs::f11_every_import_that_is_not_granted_is_named",
            "plugin_load.rs::imports_that_nobody_gets_are_all_named",
        ],
    ),
    row(
        12,
        "files that are no plugin",
        &[
            "hostile/loading.rs::f12_broken_files_are_refused",
            "hostile/loading.rs::f12_random_bytes_are_refused",
            "plugin_load.rs::precompiled_code_is_refused",
        ],
    ),
    row(
        13,
        "other contracts",
        &[
            "plugin_load.rs::another_version_of_the_contract_is_refused_naming_both",
            "plugin_load.rs::other_types_and_unknown_interfaces_are_all_named",
            "plugin_load.rs::a_component_that_handles_nothing_is_refused",
        ],
    ),
    row(
        14,
        "compile bombs",
        &[
            "plugin_compile.rs::a_compile_bomb_ends_at_its_limits",
            "plugin_compile.rs::records_flow_while_a_bomb_is_compiled",
        ],
    ),
    row(15, "a bad start", &["hostile/rows.rs::f15_a_bad_start_ends_at_the_limits_of_init"]),
    row(16, "crash after crash", &["hostile/rows.rs::f16_a_thousand_crashes_leave_nothing"]),
    row(17, "secrets in memory", &["hostile/rows.rs::f17_nothing_of_a_tenants_memory_is_read_by_the_next"]),
    row(18, "no room for another instance", &["hostile/rows.rs::f18_an_instance_without_room_is_a_clean_error"]),
    row(
        19,
        "many calls, many instances",
        &[
            "hostile/rows.rs::f19_memory_is_flat_over_calls_and_instances",
            "hostile/rows.rs::f19_instances_at_work_side_by_side_leave_nothing",
        ],
    ),
    row(20, "arbitrary host calls", &["hostile/rows.rs::f20_arbitrary_host_calls_harm_nobody"]),
    row(
        21,
        "requests to the inside",
        &[
            "plugin_http/inside.rs::requests_to_the_inside_are_refused",
            "plugin_http/inside.rs::a_redirect_is_an_answer_and_where_it_leads_is_asked_for_anew",
            "plugin_http/inside.rs::a_name_that_changes_its_mind_gains_nothing",
            "hostile/loading.rs::f11_every_import_that_is_not_granted_is_named",
        ],
    ),
    row(
        22,
        "looks at the host",
        &[
            "hostile/rows.rs::f22_there_is_nothing_to_see",
            "plugin_forms.rs::a_handler_sees_its_settings_and_outputs_and_nothing_of_the_host",
        ],
    ),
    row(
        23,
        "gone while it waits in the host",
        &[
            "hostile/rows.rs::f23_a_call_dropped_in_a_host_function_leaves_nothing",
            "plugin_faults.rs::a_call_that_the_caller_gave_up_on_leaves_no_instance",
        ],
    ),
];

// A row that is left out, or stands twice, does not build.
const _: () = {
    let mut at = 0;
    while at < CATALOGUE.len() {
        assert!(CATALOGUE[at].number == at + 1, "the rows are F1 to F23, each once");
        assert!(!CATALOGUE[at].tests.is_empty(), "a row without a test");
        at += 1;
    }
};

/// Proves: the tests that the catalogue names are there, and run.
#[test]
fn every_row_has_its_tests() {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for Row { number, about, tests: named } in &CATALOGUE {
        for test in *named {
            let (file, function) = test.split_once("::").expect("file::function");
            let source = std::fs::read_to_string(tests.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let found = source.contains(&format!("#[test]\nfn {function}()"));
            assert!(found, "F{number} ({about}): no test {function} in {file}");
            assert!(!source.contains("#[ignore"), "{file}");
        }
    }
}
