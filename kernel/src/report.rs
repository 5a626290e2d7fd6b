//! What is told to people: log lines, the boot report, and the time in one line.
//!
//! Every line ends in `\n`; the [`Console`](crate::console::Console) makes that a terminal's line end.

use core::fmt::{self, Display, Formatter, Write};
use core::net::Ipv4Addr;

use gnomon_clock::{
    Audit, Busy, ClockStatus, CounterId, Fields, NoTime, Origin, Reading, Smear, Smeared,
};

use crate::config::{Idle, Smearing};
use crate::duty::{Duty, Withheld};
use crate::net;
use crate::net::inet6::Known6;
use crate::net::port::Health;
use crate::random::Sources;
use crate::serve::ntp::{self, Answer};
use crate::serve::responder;
use crate::serve::times::{Told, reference_id};
use crate::service::Rested;
use crate::services::Services;
use crate::services::counters::Watch;
use crate::source::Table;

/// Everything there is to tell at one moment: plain data, gathered by whoever runs the service.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The machine in a few words, such as `x86_64, PVH, 16 MiB`.
    pub machine: &'a str,
    /// Nanoseconds since the start, where the counter's rate is known.
    pub uptime: Option<u64>,
    /// The time.
    pub reading: Result<Reading, NoTime>,
    /// Where the vmclock page is, such as `\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes`, or why there
    /// is none.
    pub page: Result<&'a str, &'a str>,
    /// The raw page; `None` without a page.
    pub fields: Option<Result<Fields, Busy>>,
    /// The counter of this machine.
    pub counter: CounterId,
    /// The network device, or why there is none to use.
    pub net: Result<NetView<'a>, &'a str>,
    /// The NTP server's settings.
    pub server: ntp::Server,
    /// What the NTP server did.
    pub ntp: ntp::Counters,
    /// What the NTP server remembers of its clients.
    pub clients: &'a responder::Memory,
    /// Connections of HTTP that clients hold.
    pub connections: usize,
    /// Why the time is not served, if it is known and not served.
    pub withheld: Option<Withheld>,
    /// What that was judged by.
    pub duty: &'a Duty,
    /// What the host's updates are worth.
    pub audit: &'a Audit,
    /// The smeared service; `None` if there is none.
    pub smear: Option<SmearView>,
    /// What the processor does when there is nothing to do.
    pub idle: Idle,
    /// What has come of that.
    pub rested: Rested,
    /// Where time may come from beside the page.
    pub sources: &'a Table,
    /// What firmware and hypervisor offer.
    pub services: &'a dyn Services,
    /// The counter's two views.
    pub watch: &'a Watch,
    /// What random numbers rest on.
    pub random: Sources,
}

impl View<'_> {
    /// What a client of plain NTP would be told at this moment in place of the time; `None` if it gets the time.
    #[must_use]
    pub fn refusal(&self) -> Option<Told> {
        match (&self.reading, self.withheld) {
            (Err(why), _) => Some(Told::from(why)),
            (Ok(_), Some(why)) => Some(why.into()),
            (Ok(reading), None) if reading.utc.is_none() => Some(Told::Refusal(Answer::Init)),
            (Ok(reading), None) if reading.bound.to_ntp_short() >= ntp::MAX_DISPERSION => {
                Some(Told::Refusal(Answer::Dispersion))
            }
            (Ok(_), None) => None,
        }
    }
}

/// The smeared NTP service.
#[derive(Clone, Copy, Debug)]
pub struct SmearView {
    /// How it was asked to smear.
    pub asked: Smearing,
    /// Its UDP port.
    pub port: u16,
    /// What is in force, and smeared time now; `None` while UTC is served or not known.
    pub now: Option<(Smear, Smeared)>,
}

/// The network device and what runs on it.
#[derive(Clone, Copy, Debug)]
pub struct NetView<'a> {
    /// The device in a few words, such as `virtio-net, PCI 00:02.0`.
    pub nic: &'a str,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Our IPv4 address and the length of the prefix; `None` while there is no lease.
    pub address: Option<(Ipv4Addr, u8)>,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// The IPv4 address comes from DHCP, not from the command line.
    pub dhcp: bool,
    /// The IPv6 addresses.
    pub ipv6: Known6,
    /// Frames so far.
    pub frames: net::Counters,
    /// How the device is.
    pub health: Health,
    /// The device is not relied on to wake the machine.
    pub is_mute: bool,
}

/// Prints the few lines that end the boot, the time last.
///
/// # Errors
/// What `out` returns.
pub fn boot(out: &mut dyn Write, view: &View<'_>) -> fmt::Result {
    writeln!(out, "Gnomon {VERSION}")?;
    writeln!(out, "machine   {}", view.machine)?;
    writeln!(out, "page      {}", Page(view))?;
    writeln!(out, "counter   {}", CounterLine(view))?;
    writeln!(out, "network   {}", Network(view))?;
    if let Ok(net) = &view.net {
        ipv6(out, "ipv6      ", &net.ipv6)?;
    }
    if let Some(smear) = &view.smear {
        writeln!(out, "smear     {}", SmearLine(smear))?;
    }
    writeln!(out, "{}", TimeLine(&view.reading))
}

/// Prints one log line, `message` behind the time since the start in nanoseconds:
/// `[    0.012345] message`.
///
/// # Errors
/// What `out` returns.
pub fn log(out: &mut dyn Write, since: Option<u64>, message: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(out, "{} {message}", Since(since))
}

/// Nanoseconds since the start as `[    0.012345]`, truncated to microseconds; dashes when unknown.
#[derive(Clone, Copy, Debug)]
pub struct Since(
    /// Nanoseconds.
    pub Option<u64>,
);

impl Display for Since {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nanos) => {
                let micros = nanos / 1000;
                write!(f, "[{:5}.{:06}]", micros / 1_000_000, micros % 1_000_000)
            }
            None => f.write_str("[    -.------]"),
        }
    }
}

/// The time in one line:
/// `2026-11-20T12:05:31.123456789Z ± 41.2 µs  TAI-UTC 37  synchronized`, or `no time: <reason>`. What is
/// not by the page says by whom it is.
#[derive(Clone, Copy, Debug)]
pub struct TimeLine<'a>(
    /// The time, or why there is none.
    pub &'a Result<Reading, NoTime>,
);

impl Display for TimeLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let reading = match self.0 {
            Ok(reading) => reading,
            Err(why) => return write!(f, "no time: {why}"),
        };
        let bound = Width(reading.bound.nanos());
        match (reading.utc, reading.tai) {
            (Some(utc), _) => write!(f, "{utc} ± {bound}")?,
            (None, Some(tai)) => write!(f, "{tai} ± {bound}")?,
            (None, None) => f.write_str("no time: neither UTC nor TAI is known")?,
        }
        match reading.tai_offset {
            Some(offset) => write!(f, "  TAI-UTC {offset}")?,
            None => f.write_str("  TAI-UTC unknown")?,
        }
        write!(f, "  {}", Standing(reading.status, reading.origin))
    }
}

/// `synchronized`, or `freerunning, by virtio-rtc`.
pub(crate) struct Standing(pub(crate) ClockStatus, pub(crate) Origin);

impl Display for Standing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match self.1 {
            Origin::Page => Ok(()),
            Origin::Own(source) => write!(f, ", by {source}"),
        }
    }
}

/// A bound with three significant digits, rounded up: `7 ns`, `41.2 µs`, `10.0 ms`, `1.50 s`.
#[derive(Clone, Copy, Debug)]
pub struct Width(
    /// Half the width of the interval in nanoseconds; `u64::MAX` stands for "longer than that".
    pub u64,
);

impl Display for Width {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nanos = self.0;
        if nanos == u64::MAX {
            return f.write_str("unbounded");
        }
        let mut step = 1;
        while nanos / step >= 1000 {
            step *= 10;
        }
        let rounded = u128::from(nanos.div_ceil(step)) * u128::from(step);
        let (unit, name) = match rounded {
            0..1_000 => return write!(f, "{rounded} ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let (whole, rest) = (rounded / unit, rounded % unit);
        match whole {
            0..10 => write!(f, "{whole}.{:02} {name}", rest * 100 / unit),
            10..100 => write!(f, "{whole}.{} {name}", rest * 10 / unit),
            _ => write!(f, "{whole} {name}"),
        }
    }
}

/// How the smeared service smears, and where: `noon to noon, port 1123, refid XSMR`.
pub(crate) struct SmearLine<'a>(pub(crate) &'a SmearView);

impl Display for SmearLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SmearView { asked, port, now } = self.0;
        let in_force = now.as_ref().map(|(smear, _)| *smear);
        let smear = match asked {
            Smearing::Always(smear) => Some(*smear),
            Smearing::Off | Smearing::Hint => in_force,
        };
        let by_hint = if *asked == Smearing::Hint {
            " by the page's hint"
        } else {
            ""
        };
        let name = SmearName(smear);
        let id = reference_id(smear);
        write!(
            f,
            "{name}{by_hint}, port {port}, refid {}",
            id.escape_ascii()
        )
    }
}

/// A smear in words.
pub(crate) struct SmearName(pub(crate) Option<Smear>);

impl Display for SmearName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "strict UTC",
            Some(Smear::NoonLinear) => "noon to noon",
            Some(Smear::UtcSls) => "UTC-SLS",
        })
    }
}

/// Where the page is.
pub(crate) struct Page<'a>(pub(crate) &'a View<'a>);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.page {
            Ok(place) => f.write_str(place),
            Err(why) => write!(f, "none: {why}"),
        }
    }
}

/// The counter and its rate, if the page tells it.
struct CounterLine<'a>(&'a View<'a>);

impl Display for CounterLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.counter.fmt(f)?;
        let rate = match self.0.fields {
            Some(Ok(fields)) if fields.counter_id == self.0.counter as u8 => {
                hertz(fields.counter_period_frac_sec, fields.counter_period_shift)
            }
            _ => None,
        };
        match rate {
            Some((hertz, _)) => {
                let kilo = (hertz + 500) / 1000;
                write!(f, " at {}.{:03} MHz", kilo / 1000, kilo % 1000)
            }
            None => f.write_str(", rate unknown"),
        }
    }
}

/// The device and its addresses.
struct Network<'a>(&'a View<'a>);

impl Display for Network<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let net = match &self.0.net {
            Ok(net) => net,
            Err(why) => return write!(f, "none: {why}"),
        };
        write!(f, "{}, {}, {}", net.nic, Mac(net.mac), Address(net))?;
        if let Some(gateway) = net.gateway {
            write!(f, " via {gateway}")?;
        }
        Ok(())
    }
}

/// The IPv6 addresses, one a line.
pub(crate) fn ipv6(out: &mut dyn Write, name: &str, known: &Known6) -> fmt::Result {
    for address in known.iter().flatten() {
        writeln!(out, "{name}{address}")?;
    }
    Ok(())
}

/// An Ethernet address in the usual notation.
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Display for Mac {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// An IPv4 address and where it comes from.
pub(crate) struct Address<'a>(pub(crate) &'a NetView<'a>);

impl Display for Address<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0.address, self.0.dhcp) {
            (Some((address, prefix)), true) => write!(f, "{address}/{prefix} by DHCP"),
            (Some((address, prefix)), false) => write!(f, "{address}/{prefix}"),
            (None, true) => f.write_str("no address yet, asking DHCP"),
            (None, false) => f.write_str("no address"),
        }
    }
}

/// The rate of a counter whose period is `frac`·2^−(64+`shift`) s, in hertz and thousandths,
/// rounded to nearest; `None` for a period of zero, or one too short for any counter (2⁶⁴ Hz).
pub(crate) fn hertz(frac: u64, shift: u8) -> Option<(u128, u128)> {
    let second = 1_u128.checked_shl(64 + u32::from(shift))?;
    let frac = u128::from(frac);
    let whole = second.checked_div(frac)?;
    match (second % frac * 1000 + frac / 2) / frac {
        1000 => Some((whole + 1, 0)),
        thousandths => Some((whole, thousandths)),
    }
}

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_have_three_digits_rounded_up() {
        for (nanos, text) in [
            (0, "0 ns"),
            (7, "7 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (1_001, "1.01 µs"),
            (9_991, "10.0 µs"),
            (41_101, "41.2 µs"),
            (41_200, "41.2 µs"),
            (99_901, "100 µs"),
            (999_000, "999 µs"),
            (999_001, "1.00 ms"),
            (10_000_000, "10.0 ms"),
            (10_000_001, "10.1 ms"),
            (999_999_999, "1.00 s"),
            (1_500_000_000, "1.50 s"),
            (59_940_000_001, "60.0 s"),
            (1_234_000_000_000, "1240 s"),
            (18_446_744_073_709_551_614, "18500000000 s"),
            (u64::MAX, "unbounded"),
        ] {
            assert_eq!(Width(nanos).to_string(), text, "{nanos}");
        }
    }

    #[test]
    fn log_lines_carry_the_time_since_the_start() {
        let mut out = std::string::String::new();
        for since in [
            Some(0),
            Some(12_345_678),
            Some(99_999_999_999_999),
            Some(u64::MAX),
            None,
        ] {
            log(&mut out, since, format_args!("hello {}", 1)).expect("a String takes everything");
        }
        assert_eq!(
            out,
            "[    0.000000] hello 1\n[    0.012345] hello 1\n[99999.999999] hello 1\n\
             [18446744073.709551] hello 1\n[    -.------] hello 1\n"
        );
    }

    #[test]
    fn rates() {
        // 1 GHz as UAPI.13 gives it, and the ends of the range.
        assert_eq!(hertz(0x8970_5f41_36b4_a597, 29), Some((1_000_000_000, 0)));
        assert_eq!(hertz(1, 0), Some((1 << 64, 0)));
        assert_eq!(hertz(3 << 62, 0), Some((1, 333)));
        assert_eq!(hertz(u64::MAX, 63), Some((1 << 63, 500)));
        assert_eq!(hertz(0, 20), None);
        assert_eq!(hertz(1, 64), None);
        assert_eq!(hertz(1, 255), None);
    }

    proptest! {
        /// What is printed is never below the bound, and above it by less than one in a hundred.
        #[test]
        fn widths_are_outward_and_near(nanos in 0..u64::MAX) {
            let text = Width(nanos).to_string();
            let (number, unit) = text.split_once(' ').expect("number and unit");
            let scale: u128 = match unit {
                "ns" => 1,
                "µs" => 1_000,
                "ms" => 1_000_000,
                _ => 1_000_000_000,
            };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            let hundredths: u128 = format!("{whole}{fraction:0<2}").parse().expect("digits");
            let (shown, real) = (hundredths * scale, u128::from(nanos) * 100);
            prop_assert!(shown >= real && shown * 100 <= real * 101, "{nanos}: {text}");
        }
    }
}
