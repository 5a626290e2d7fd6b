//! The smoke test's watch of pages: any copies in any order, and a judgement of each rule.

use gnomon_clock::{CounterId, Fields, Ticks};
use gnomon_kernel::services::counters::Rate;
use gnomon_kernel::smoke::page::{Rates, Rule, Stop, Watch};
use gnomon_kernel::smoke::tap::{Outcome, Tap};

use crate::input::Input;
use crate::world::good;

/// Input: what is known of the rate, and steps.
///
/// # Panics
/// The judgement is not TAP, or a page that was only honest has broken a rule.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let [hertz, unit] = [input.number(), input.number()];
    let rate = Rate {
        hertz,
        unit,
        source: "a timer",
    };
    let rates = Rates {
        measured: Some(rate).filter(|_| unit > 0 && hertz > 0),
        stated: Some(rate).filter(|_| unit > 1 && hertz > 0),
    };
    let mut watch = Watch::new(CounterId::X86Tsc, Some(hertz).filter(|hertz| *hertz > 0));
    let (mut fields, mut ticks) = (good(1), Ticks(0));
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        match input.u8() % 8 {
            0 => fields = Fields::from_bytes(&input.array()),
            1 => {
                let mut bytes = fields.to_bytes();
                let place = usize::from(input.u8()) % bytes.len();
                bytes[place] = input.u8();
                fields = Fields::from_bytes(&bytes);
            }
            2 => watch.refused(input.u32(), ticks),
            3 => {
                let nanos = input.number();
                let after = Fields {
                    disruption_marker: fields.disruption_marker.wrapping_add(input.u64() & 1),
                    ..fields
                };
                let later = Ticks(ticks.0.wrapping_add(nanos));
                watch.stopped(Stop { nanos }, (fields, ticks), (after, later));
            }
            4 => ticks = Ticks(ticks.0.wrapping_add(input.number())),
            kind => {
                if kind > 5 {
                    fields.seq_count = fields.seq_count.wrapping_add(2);
                }
                watch.saw(&fields, ticks);
            }
        }
    }
    let mut text = String::new();
    let mut tap = Tap::begin(&mut text, Rule::ALL.len()).expect("a string takes everything");
    for rule in Rule::ALL {
        let outcome = watch.outcome(*rule, &rates);
        let (Outcome::Ok(evidence) | Outcome::NotOk(evidence) | Outcome::Skip(evidence)) = &outcome;
        assert!(!evidence.as_str().is_empty());
        tap.tell(&mut text, rule.check(), &outcome)
            .expect("a string takes everything");
    }
    let tally = tap.end(&mut text).expect("a string takes everything");
    let told = usize::try_from(tally.ok + tally.not_ok + tally.skipped).expect("a few");
    assert_eq!(told, Rule::ALL.len());
    let points = text
        .lines()
        .filter(|line| line.starts_with("ok ") || line.starts_with("not ok "));
    assert_eq!(points.count(), Rule::ALL.len(), "{text}");
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}
