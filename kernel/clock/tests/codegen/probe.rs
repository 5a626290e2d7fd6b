//! What `tests/codegen.rs` compiles for the bare targets, to look at the instructions.
#![no_std]

use gnomon_clock::page::Misplaced;
use gnomon_clock::{Bound, Busy, Clock, ClockStatus, Counter, Fields, Stamp, Ticks, UtcTime};
use gnomon_clock::{VmclockPage, Writer};

#[cfg_attr(
    target_arch = "x86_64",
    path = "../../../../arch/src/x86_64/counter.rs"
)]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[expect(dead_code, reason = "only the counter's reading is looked at")]
mod counter;

use counter::this_cpu;

#[cfg(target_arch = "x86_64")]
type Cpu = counter::Tsc;
#[cfg(target_arch = "aarch64")]
type Cpu = counter::VirtualCounter;

// SAFETY: nothing else has these names.
#[unsafe(no_mangle)]
pub fn probe_snapshot(page: &VmclockPage) -> Result<(Fields, Ticks), Busy> {
    page.snapshot_with(|| this_cpu().read())
}

// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn probe_stamp(page: &VmclockPage) -> Stamp {
    Clock::new(Some(page), this_cpu()).stamp()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn probe_now(clock: &mut Clock<'_, Cpu>) -> Option<(UtcTime, Bound, ClockStatus)> {
    let now = clock.now().ok()?;
    Some((now.utc()?, now.bound(), now.status()))
}

// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn probe_publish(writer: &mut Writer<&VmclockPage>, fields: &Fields) -> Result<u32, Misplaced> {
    writer.publish(fields)
}
