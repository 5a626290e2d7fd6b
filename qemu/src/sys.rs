//! The few requests to the processor and the kernel for which no safe wrapper exists. All `unsafe`
//! of this crate is here.
#![expect(
    unsafe_code,
    reason = "rdtsc, adjtimex and pre_exec have no safe wrapper"
)]

use core::mem;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal as Ending};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::ClockId;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("this version of gnomon-qemu measures the x86 TSC: build it on an x86_64 host");

/// Reads the host's time-stamp counter: after every earlier load has completed, before any later
/// instruction starts.
pub(crate) fn counter() -> u64 {
    use core::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: the fence is part of SSE2, which every x86_64 processor has.
    unsafe { _mm_lfence() };
    // SAFETY: rdtsc touches no memory, and Linux leaves it enabled for user programs (a process
    // that has switched it off for itself with PR_SET_TSC gets a signal, not undefined behaviour).
    let ticks = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}

/// `CLOCK_TAI`: seconds and nanoseconds since 1970. Through the vDSO, where rustix makes a system
/// call of it, which takes ten times as long.
pub(crate) fn clock_tai() -> io::Result<(i64, i64)> {
    let time = ClockId::CLOCK_TAI.now()?;
    Ok((time.tv_sec(), time.tv_nsec()))
}

/// `CLOCK_MONOTONIC` in nanoseconds, through the vDSO. It does not fail for a clock that Linux always has.
pub(crate) fn monotonic() -> u64 {
    let time = ClockId::CLOCK_MONOTONIC.now();
    let time = time.map_or([0; 2], |time| [time.tv_sec(), time.tv_nsec()]);
    let [seconds, nanos] = time.map(i64::cast_unsigned);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}

/// `adjtimex(2)` in read-only mode: the kernel's answer (`TIME_OK`, `TIME_INS`, ...) and its
/// clock's parameters.
pub(crate) fn adjtimex() -> io::Result<(i32, libc::timex)> {
    // SAFETY: struct timex is plain integers, for which all zeroes is a value; modes = 0 asks to
    // change nothing.
    let mut timex: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live, writable struct timex, which is all the call writes to.
    let answer = unsafe { libc::adjtimex(&raw mut timex) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok((answer, timex))
    }
}

/// Blocks the signals that ask a program to end and returns a descriptor that becomes readable when
/// one arrives.
///
/// Call it before the first thread is started: threads inherit the mask.
pub(crate) fn ending_signals() -> io::Result<OwnedFd> {
    let signals: SigSet = [
        Ending::SIGINT,
        Ending::SIGTERM,
        Ending::SIGHUP,
        Ending::SIGQUIT,
    ]
    .into_iter()
    .collect();
    signals.thread_block()?;
    let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    Ok(descriptor.into())
}

/// Has the kernel kill the command's process when the *thread* that starts it ends, so that no QEMU
/// outlives its launcher.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let in_child = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls; it neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(in_child) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_moves_forward() {
        let first = counter();
        let second = counter();
        assert!(second > first, "{first} then {second}");
    }

    #[test]
    fn adjtimex_reads_the_clock() {
        let (_, timex) = adjtimex().expect("reading is allowed to everybody");
        assert!(
            timex.time.tv_sec > 1_700_000_000,
            "the kernel's clock says {}",
            timex.time.tv_sec
        );
    }
}
