//! Interleaved mode (RFC 9769) beside basic mode: chronyd asks one guest in either, in turns.

use gnomon_tests::guest::machine;
use gnomon_tests::judge::modes::{Comparison, Plan};

gnomon_tests::on_both![
    both_modes_of_a_guest_that_serves_others,
    both_modes_of_a_guest_that_sleeps_meanwhile
];

const PLAN: Plan = Plan {
    others: 0,
    turns: 2,
    samples: 32,
};

fn both_modes_of_a_guest_that_serves_others() {
    let compared = compare(
        "adaptive",
        Plan {
            others: 1000,
            ..PLAN
        },
    );
    assert!(compared.others > 0);
}

fn both_modes_of_a_guest_that_sleeps_meanwhile() {
    // One sees its replies leave as it looks on, the other is woken by it.
    for idle in ["adaptive", "halt"] {
        compare(idle, PLAN);
    }
}

/// Nothing here depends on luck: which spread is less is judged over more samples, by `make judges`.
fn compare(idle: &str, plan: Plan) -> Comparison {
    let machine = machine().append(format!("idle={idle}"));
    let compared = Comparison::of(machine, plan);
    println!(
        "idle={idle}, {} requests/s besides: {compared}",
        plan.others
    );
    for samples in [&compared.basic, &compared.interleaved] {
        assert_eq!(samples.all().count(), plan.turns * plan.samples);
        for sample in samples.all() {
            assert!(sample.offset.abs() <= sample.bound, "{sample:?}");
        }
    }
    compared
}
