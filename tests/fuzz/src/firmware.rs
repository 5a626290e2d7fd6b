//! What firmware and hypervisor answer when they are asked: calls and CPUID leaves.

use std::cell::RefCell;

use gnomon_kernel::services::Services;
use gnomon_kernel::services::counters::Rate;
use gnomon_kernel::services::hypervisor::Processor;
use gnomon_kernel::services::smccc::{self, Conduit, Smccc, StolenTime};

use crate::input::Input;

/// What a host writes there; with another revision below, what is not known.
static STOLEN: StolenTime = StolenTime::new(0, 0, 12_345);

/// Input: answers.
///
/// # Panics
/// Something is believed that must not be, or the work was not bounded.
pub fn run(data: &[u8]) {
    let answers = RefCell::new(Input(data));
    let asked = RefCell::new(0_u32);
    let mut call = |_: [u64; 4]| {
        *asked.borrow_mut() += 1;
        let mut answers = answers.borrow_mut();
        [(); 4].map(|()| answers.number())
    };
    let found = Smccc::discover(Some((Conduit::Hvc, &mut call)), None, |address| {
        assert!(address % 64 == 0);
        (address & 64 == 0).then_some(&STOLEN)
    });
    let (_, _) = (smccc::ptp(&mut call), smccc::entropy(&mut call));
    list(&found);
    let has = (found.has_ptp(), found.has_entropy());
    let _ = (has, found.rate(), found.stolen());
    assert!(*asked.borrow() < 1000);

    let leaves = RefCell::new(Input(data));
    let asked = RefCell::new(0_u32);
    let cpuid = |_: u32, _: u32| {
        *asked.borrow_mut() += 1;
        let mut leaves = leaves.borrow_mut();
        [(); 4].map(|()| leaves.u32())
    };
    let processor = Processor::discover(&cpuid);
    list(&processor);
    let rate: Option<Rate> = processor.rate();
    assert!(rate.is_none_or(|rate| rate.hertz > 0 && rate.unit > 0));
    assert!(*asked.borrow() < 2000);
}

fn list(services: &dyn Services) {
    let mut text = String::new();
    services.list(&mut text).expect("a string takes everything");
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}
