//! The checks that disturb nobody, for the shell of a machine that serves: one after the other, in less than a
//! millisecond each.
//!
//! What needs the machine for itself (interrupts, the UART, the network) or seconds of attention is skipped, and says
//! so. What binds one update of the page to the next is judged by the service's own audit, which has seen more of them
//! than any test.

use super::machine::{self, Notice, Readings, Rule as MachineRule};
use super::page::{Rates, Rule as PageRule, Watch};
use super::tap::{Check, Outcome};
use super::{DISCOVERY, RESERVED};
use crate::shell::Desk;

/// Readings of the counter for a check, in this many batches.
const BATCHES: u64 = 64;
const BATCH: u64 = 64;
/// Looks at the page for a check.
const LOOKS: u32 = 16;
/// What is said of the others.
const ALONE: &str = "not beside a service: boot with `smoke` on the command line";

/// Makes the check of this number, from 0; `None` behind the last.
#[must_use]
#[inline(never)]
pub fn check(number: usize, desk: &Desk<'_>) -> Option<(&'static Check, Outcome)> {
    let number = match MachineRule::ALL.get(number) {
        Some(&rule) => return Some((rule.check(), of_machine(rule, desk))),
        None => number - MachineRule::ALL.len(),
    };
    let discovery = match desk.view.page {
        Ok(place) => Outcome::ok(&place),
        Err(why) => Outcome::not_ok(&why),
    };
    match number {
        0 => Some((&DISCOVERY, discovery)),
        1 => Some((&RESERVED, Outcome::skip(&ALONE))),
        _ => {
            let rule = *PageRule::ALL.get(number - 2)?;
            Some((rule.check(), of_page(rule, desk)))
        }
    }
}

fn of_machine(rule: MachineRule, desk: &Desk<'_>) -> Outcome {
    let view = &desk.view;
    let stated = view.services.rate();
    match rule {
        MachineRule::Order => readings(desk).order(BATCHES * BATCH),
        MachineRule::Cost => readings(desk).cheap(stated.map(|rate| rate.hertz)),
        MachineRule::Stated => machine::stated(stated, None, view.counter),
        MachineRule::Virtio => match &view.net {
            Ok(net) => Outcome::ok(&net.nic),
            Err(why) => Outcome::skip(why),
        },
        _ => Outcome::skip(&ALONE),
    }
}

fn readings(desk: &Desk<'_>) -> Readings {
    let mut readings = Readings::default();
    for _ in 0..BATCHES {
        let before = desk.meter.read();
        for _ in 0..BATCH {
            readings.read(desk.meter.read());
        }
        let spent = desk.meter.read().since(before);
        readings.cost(u64::try_from(spent).unwrap_or(0), BATCH + 1);
    }
    readings
}

fn of_page(rule: PageRule, desk: &Desk<'_>) -> Outcome {
    let view = &desk.view;
    let stated = view.services.rate();
    let hertz = stated.map(|rate| rate.hertz);
    let mut watch = Watch::beside(view.counter, hertz, view.audit);
    for _ in 0..LOOKS {
        match desk.meter.fields() {
            Some(Ok(fields)) => {
                let now = desk.meter.read();
                watch.saw(&fields, now);
                watch.noticed(Notice::Unknown(ALONE), Some(now));
            }
            Some(Err(_)) => watch.refused(1, desk.meter.read()),
            None => return Outcome::skip(&"there is no page"),
        }
    }
    let rates = Rates {
        measured: None,
        stated,
    };
    watch.outcome(rule, &rates)
}
