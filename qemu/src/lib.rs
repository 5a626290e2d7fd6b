//! Starts QEMU and publishes the host's time into the guest's vmclock page.
//!
//! Stock QEMU has a vmclock page without time in it. This crate fills it from outside, on an
//! unmodified QEMU, for any guest. It is the library behind the command `gnomon-qemu`, and what
//! tests drive guests with.
//!
//! * [`arch`]: what differs between the architectures of guests. [`tree`]: the device tree of one of them.
//! * [`machine`]: a QEMU command line as a type ([`Machine`]). [`vm`]: a running QEMU as a value ([`Vm`]).
//! * [`publish`]: the thread that keeps the page filled ([`Publisher`]).
//! * [`scenario`]: what a guest's time goes through on request ([`Scenario`]): leap seconds, disruptions,
//!   and hosts that break their word.
//! * [`attend`]: the terminal and the signals of a command that stays with a machine.
//!
//! Below these, in the order in which time flows:
//!
//! * [`host`], [`leap_table`]: the host's clock against the host's counter, TAI − UTC, leap
//!   seconds.
//! * [`estimate`]: from samples of it to a straight line with its errors.
//! * [`mapping`], with [`elf`] and [`vmstate`]: the guest's counter against the host's.
//! * [`page`]: from all that to the fields of the page.
//! * [`memory`]: from there to QEMU's memory. [`qmp`]: what QEMU says and does meanwhile.
//!
//! # What the published bound contains
//!
//! At the reference instant (`time_maxerror_nanosec`): half the time that the narrowest of eight
//! readings of the clock took, twice (so that the next publication's line, which passes through the
//! next sample, lies inside this one); the clock's resolution; the mapping's error, which is zero
//! if it is proven and half the width of the bracket otherwise; with a synchronised kernel, its
//! `maxerror`. Per tick (`counter_period_maxerror_rate_frac_sec`): the measured uncertainty of the
//! rate, and 501 ppm. 500 of them are an assumption: that nobody changes the rate of the host's clock
//! by more between two updates. Who does is found out at the next update, which then is a disruption.
//!
//! For a guest whose counter is made from `CLOCK_MONOTONIC` the host's clock is read against that: the
//! readings are as narrow, and the rate is all but exact, because Linux slews both clocks alike. The 500
//! ppm are claimed all the same: they are what the kernel's `maxerror` may grow by. To the mapping's
//! error half a tick is added, for what the guest's counter leaves out.
//!
//! What a page has told of a counter value stands: the next pages under the same marker put it inside
//! that interval, even when the clock has changed its rate meanwhile ([`page::Promises`]).

pub mod arch;
pub mod attend;
mod child;
pub mod elf;
pub mod estimate;
pub mod host;
pub mod leap_table;
pub mod machine;
pub mod mapping;
pub mod memory;
pub mod page;
mod player;
pub mod publish;
pub mod qmp;
pub mod scenario;
mod serial;
pub mod smoke;
mod snapshot;
mod sys;
pub mod temporary;
pub mod tree;
pub mod vm;
pub mod vmstate;
mod worker;

pub use arch::Arch;
pub use child::End;
pub use machine::Machine;
pub use publish::Publisher;
pub use scenario::Scenario;
pub use serial::SerialError;
pub use vm::Vm;
