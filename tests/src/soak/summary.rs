//! What came of a run.

use core::fmt;
use core::time::Duration;
use std::fs;

use super::clients::{Asked, KINDS, Kind, Seen};
use crate::footprint::{Footprint, STACK};
use crate::truth::{Journals, Judged};

/// What came of a run: [`faults`](Self::faults) says whether it was a good one.
#[derive(Debug, Default)]
pub struct Summary {
    pub(super) took: Duration,
    pub(super) lives: u64,
    pub(super) snapshots: u64,
    pub(super) migrations: u64,
    pub(super) phases: u64,
    /// Answers over the console.
    pub(super) console: u64,
    /// Pages against a promise: the publisher's fault.
    pub(super) broken: u64,
    pub(super) asked: [Asked; KINDS.len()],
    pub(super) judged: Judged,
    pub(super) rss: Rss,
    /// Bounds of replies with the field F323 in calm times, in ns.
    bounds: Vec<u64>,
    footprints: Vec<Footprint>,
    /// What the guest said of its tables last, and whether one had more in it than it has room for.
    tables: String,
    overfull: bool,
    /// Connections were open after the last client had gone.
    pub(super) held: bool,
    /// Used-ring entries that no honest device writes, by the guest.
    lies: u64,
    /// Promises that the host broke, by the guest.
    violations: u64,
    /// The same while the host's clock was slewed.
    slewed: u64,
}

/// How much of the first and the last bounds is compared.
const TENTH: usize = 10;
/// What the last bounds may be, by the first: a percentile, so many times it, so many ns more. The least is what the
/// clock itself is good for; how old a page may become is the host's affair, and weighs on all others.
const DRIFT: [(usize, u64, u64); 2] = [(0, 2, 1000), (10, 4, 10_000)];
/// What QEMU's memory may grow by in the later half of a life, in KiB.
const GROWTH: u64 = 4 << 10;

/// In this scenario the clock turns within milliseconds and the page is written each. The publisher keeps what its last
/// four pages promised; a guest that has not seen each of them keeps older ones, and may find a promise of these broken.
const SLEWING: &str = "slew";

impl Summary {
    /// Judges one more answer.
    pub(super) fn take(&mut self, seen: &Seen, journals: Journals<'_>) {
        self.judged.take(&seen.record, journals);
        if let (Some(Kind::MonoRoot), true, Some(bound)) =
            (seen.kind, seen.calm, seen.record.bound())
        {
            self.bounds.push(bound);
        }
    }

    pub(super) fn weigh(&mut self, footprint: Footprint, line: String, tables: &[(u32, u32)]) {
        self.footprints.push(footprint);
        self.overfull |= tables.iter().any(|(used, places)| used > places);
        self.tables = line;
    }

    /// Takes what the guest says of its host after something was played; returns what it says for the first time.
    pub(super) fn audit(&mut self, name: &str, said: &str) -> Option<String> {
        let seen = number_after(said, "violations").unwrap_or(0);
        let new = seen.saturating_sub(self.violations + self.slewed);
        if name == SLEWING {
            self.slewed += new;
            return None;
        }
        self.violations += new;
        (new > 0).then(|| format!("after {name}, the guest says:\n{said}"))
    }

    /// The guest's last words of its network.
    pub(super) fn finish(&mut self, net: &str) {
        self.lies = number_before(net, " ring entries that no honest").unwrap_or(0);
    }

    /// What must not be, in sentences.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is: bool, what: String| faults.extend(is.then_some(what));
        let Judged { wrong, stale, .. } = &self.judged;
        fault(*wrong > 0, format!("{wrong} answers are wrong"));
        fault(*stale > 0, format!("{stale} answers are stale"));
        fault(
            self.broken > 0,
            format!("the publisher broke its promises {} times", self.broken),
        );
        for (kind, asked) in KINDS.into_iter().zip(&self.asked) {
            let name = kind.name();
            fault(
                asked.timed == 0,
                format!("{name}: never an answer with time"),
            );
        }
        let interleaved = self.asked[Kind::Interleaved as usize].interleaved;
        fault(interleaved == 0, "nothing was interleaved".to_owned());
        let outside: Vec<u64> = self.footprints.iter().map(|print| print.outside).collect();
        fault(
            outside.windows(2).any(|pair| pair[0] != pair[1]),
            "memory beside the image has changed".to_owned(),
        );
        let deepest = self.deepest();
        fault(
            deepest as u64 > STACK / 4 * 3,
            format!("{deepest} of {STACK} bytes of stack are used"),
        );
        fault(self.overfull, "a table has more in it than room".to_owned());
        fault(self.held, "connections are open that nobody has".to_owned());
        let growth = self.rss.growth();
        fault(growth > GROWTH, format!("QEMU has grown by {growth} KiB"));
        let [first, last] = self.tenths();
        for (percent, factor, more) in DRIFT {
            let [first, last] = [&first, &last].map(|tenth| percentile(tenth, percent));
            fault(
                last > first * factor + more,
                format!("p{percent} of the bound has drifted from {first} to {last} ns"),
            );
        }
        let Self {
            lies, violations, ..
        } = self;
        fault(
            *lies > 0 || *violations > 0,
            format!("the guest has found {lies} lies in its rings, {violations} broken promises"),
        );
        faults
    }

    fn deepest(&self) -> usize {
        self.footprints
            .iter()
            .map(|print| print.stack)
            .max()
            .unwrap_or(0)
    }

    /// The first and the last tenth of the bounds, each sorted.
    fn tenths(&self) -> [Vec<u64>; 2] {
        let tenth = self.bounds.len().div_ceil(TENTH);
        let mut tenths = [
            self.bounds[..tenth].to_vec(),
            self.bounds[self.bounds.len() - tenth..].to_vec(),
        ];
        for tenth in &mut tenths {
            tenth.sort_unstable();
        }
        tenths
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judged {
            timed,
            without,
            wrong,
            stale,
            slack,
            examples,
        } = &self.judged;
        writeln!(
            f,
            "ran         {:.0} s, {} scenarios, {} QEMUs: {} snapshots restored, {} live migrations",
            self.took.as_secs_f64(),
            self.phases,
            self.lives,
            self.snapshots,
            self.migrations
        )?;
        for (kind, asked) in KINDS.into_iter().zip(&self.asked) {
            let Asked {
                requests,
                answered,
                timed,
                interleaved,
            } = asked;
            write!(
                f,
                "{:<11} {requests} requests, {answered} answers, {timed} with time",
                kind.name()
            )?;
            match kind {
                Kind::Interleaved => writeln!(f, ", {interleaved} interleaved")?,
                _ => writeln!(f)?,
            }
        }
        writeln!(f, "console     {} answers", self.console)?;
        writeln!(
            f,
            "judged      {timed} with time: {wrong} wrong, {stale} stale, least slack {slack} ns; {without} without time"
        )?;
        for (at, tenth) in ["first", "last"].into_iter().zip(self.tenths()) {
            let of = |percent| percentile(&tenth, percent);
            writeln!(
                f,
                "bound       {at} tenth of {}: least {} ns, p10 {}, median {}, p99 {}",
                tenth.len(),
                of(0),
                of(10),
                of(50),
                of(99)
            )?;
        }
        let first = self.footprints.first().map_or(0, |print| print.stack);
        let outside = self
            .footprints
            .windows(2)
            .all(|pair| pair[0].outside == pair[1].outside);
        writeln!(
            f,
            "guest       stack {first} bytes deep at first, {} at last, of {STACK}; memory beside the image {}",
            self.deepest(),
            if outside { "unchanged" } else { "CHANGED" }
        )?;
        writeln!(f, "tables      {}", self.tables)?;
        writeln!(
            f,
            "QEMU        {} KiB at most in the first life, {} in the last; grew by {} KiB at most in the later half of one",
            self.rss.first(),
            self.rss.last(),
            self.rss.growth()
        )?;
        writeln!(
            f,
            "found       by the guest: {} lies of the device, {} broken promises of the host, {} while its clock was slewed",
            self.lies, self.violations, self.slewed
        )?;
        for (record, epochs) in examples {
            writeln!(f, "{record:#?}\n{epochs:#?}")?;
        }
        Ok(())
    }
}

/// QEMU's resident memory in KiB, over each of its lives.
#[derive(Debug, Default)]
pub(super) struct Rss(Vec<Vec<u64>>);

impl Rss {
    pub(super) fn begin(&mut self) {
        self.0.push(Vec::new());
    }

    pub(super) fn note(&mut self, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let kib = number_after(&status, "VmRSS:").expect("every process has it");
        if let Some(life) = self.0.last_mut() {
            life.push(kib);
        }
    }

    fn first(&self) -> u64 {
        most(self.0.first())
    }

    fn last(&self) -> u64 {
        most(self.0.last())
    }

    /// By how much the most in the later half of a life is above the most in its first half, at worst.
    fn growth(&self) -> u64 {
        let of = |life: &Vec<u64>| {
            let (early, late) = life.split_at(life.len().div_ceil(2));
            let most = |half: &[u64]| half.iter().copied().max();
            most(late)
                .zip(most(early))
                .map(|(late, early)| late.saturating_sub(early))
        };
        self.0.iter().filter_map(of).max().unwrap_or(0)
    }
}

fn most(life: Option<&Vec<u64>>) -> u64 {
    life.and_then(|life| life.iter().copied().max())
        .unwrap_or(0)
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    match sorted.len() {
        0 => 0,
        length => sorted[(length - 1) * percent / 100],
    }
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn number_before(text: &str, name: &str) -> Option<u64> {
    let (before, _) = text.split_once(name)?;
    let before = before.trim_end();
    let start = before
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + 1);
    before[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_connections_are_judged() {
        let weighed = |tables: &[(u32, u32)], held| {
            let mut summary = Summary {
                held,
                ..Summary::default()
            };
            let footprint = Footprint {
                stack: 1,
                outside: 1,
            };
            summary.weigh(footprint, String::new(), tables);
            let faults = summary.faults();
            [
                "a table has more in it than room",
                "connections are open that nobody has",
            ]
            .map(|sentence| faults.iter().any(|fault| fault == sentence))
        };
        assert_eq!(weighed(&[(1024, 1024), (4, 4)], false), [false, false]);
        assert_eq!(weighed(&[(1024, 1024), (5, 4)], false), [true, false]);
        assert_eq!(weighed(&[], true), [false, true]);
    }
}
