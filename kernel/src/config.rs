//! The command line: `key=value` words separated by white space.
//!
//! | Key | Values | Default |
//! |---|---|---|
//! | `ip` | `dhcp`, or `ADDR/LEN[,GATEWAY]` (IPv4) | `dhcp` |
//! | `serial` | `shell`, `off` | `shell` |
//! | `idle` | `halt`, `poll` | `halt` |
//! | `ntp.stratum` | `1` to `15` | `1` |
//! | `ntp.allow`, `ntp.deny` | `ADDR/LEN` or `ADDR`, comma separated ([`access`](crate::serve::access)) | everybody is answered |
//! | `ntp.limit` | `off`, or `BURST,INTERVAL` such as `8,8s` ([`limit`](crate::serve::limit)) | `off` |
//! | `ntp.key` | `ID:AES128:HEX` or `ID:AES256:HEX` ([`auth`](crate::serve::auth)) | none |
//! | `ntp.auth` | `optional`, `require` | `optional` |
//! | `ntp.smear` | `off`, `hint`, `noon`, `sls` | `off` |
//! | `ntp.smear.port` | a UDP port beside 123 for the smeared service | none: 123 is smeared |
//! | `tai_offset` | TAI − UTC in seconds, `10` to `60` | the page's |
//! | `on_violation` | `serve`, `alarm`, `stop` | `alarm` |
//! | `drain` | `off`, `soon`, `imminent` | `off` |
//! | `holdover.max` | seconds | no limit |
//! | `source` | `auto`, or names separated by commas: `vmclock`, `kvm`, `virtio-rtc`, `ntp:ADDR`, `rtc`, `auto` ([`source`](crate::source)) | `auto` |
//! | `vmclock` | physical address of the page, decimal or `0x` hexadecimal, a multiple of 4096 | found in ACPI or the device tree |
//!
//! A word that is not understood never stops the boot: it is reported as a [`Warning`] and the
//! value so far stays. When a key comes twice, the last good value holds.
//!
//! The lists `ntp.allow` and `ntp.deny` are other: each word adds to them, and one that is not
//! understood closes the NTP server to everybody, since nobody knows whom it was to keep out. For
//! the same reason `ntp.auth` requires authentication when it is not understood. Each `ntp.key` adds a key.
//!
//! Nothing that could be a key is ever shown in a warning.

use core::fmt;
use core::net::Ipv4Addr;

use gnomon_clock::{OperatorOffset, Smear};

use crate::duty::{Conditions, Drain, OnViolation};
use crate::serve::access::Rule;
use crate::serve::limit::Limit;
use crate::serve::ntp;
use crate::serve::responder::Policy;
use crate::source::Choice;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `ip=`: where the IPv4 address comes from.
    pub ip: Ip,
    /// `serial=`: what runs on the serial console.
    pub serial: Serial,
    /// `idle=`: what the processor does when there is nothing to do.
    pub idle: Idle,
    /// `ntp.stratum=`: the stratum announced while the time is good, 1..=15.
    pub stratum: u8,
    /// `ntp.allow=`, `ntp.deny=`, `ntp.limit=`, `ntp.key=`, `ntp.auth=`: whom the NTP server answers.
    pub policy: Policy,
    /// `ntp.smear=`: how the NTP service spreads leap seconds.
    pub smear: Smearing,
    /// `ntp.smear.port=`: where the smeared service is, when port 123 is to stay plain. Only with
    /// `ntp.smear=`; never 0, 123, nor a port of DHCP.
    pub smear_port: Option<u16>,
    /// `tai_offset=`: TAI − UTC for pages that do not tell it.
    pub tai_offset: Option<OperatorOffset>,
    /// `on_violation=`, `drain=` and `holdover.max=`: when to stop serving.
    pub conditions: Conditions,
    /// `source=`: where the time may come from.
    pub source: Choice,
    /// `vmclock=`: physical address of the vmclock page, in place of discovery.
    pub vmclock: Option<u64>,
}

/// Where the IPv4 address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// From a DHCP server.
    Dhcp,
    /// From the command line.
    Static {
        /// A unicast address, not the network's own or its broadcast address.
        address: Ipv4Addr,
        /// Length of the network prefix, 1..=32.
        prefix: u8,
        /// The router, inside the prefix (anywhere for a prefix of 32).
        gateway: Option<Ipv4Addr>,
    },
}

/// What runs on the serial console. Log lines are written to it in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serial {
    /// The prompt of [`shell`](crate::shell).
    Shell,
    /// Input is ignored.
    Off,
}

/// How the NTP service spreads leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smearing {
    /// Not at all.
    Off,
    /// As the page's hint says, from answer to answer.
    Hint,
    /// In this way, whatever the page's hint is.
    Always(Smear),
}

/// What the processor does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Sleep until the next interrupt.
    Halt,
    /// Keep looking: the quickest answer, at the price of a whole host CPU.
    Poll,
}

impl Config {
    /// What holds when the command line is empty.
    pub const DEFAULT: Self = Self {
        ip: Ip::Dhcp,
        serial: Serial::Shell,
        idle: Idle::Halt,
        stratum: 1,
        policy: Policy::OPEN,
        smear: Smearing::Off,
        smear_port: None,
        tai_offset: None,
        conditions: Conditions::DEFAULT,
        source: Choice::AUTO,
        vmclock: None,
    };

    /// Reads a command line and calls `warn` for every word of it that is not taken as it stands.
    pub fn parse(cmdline: &str, warn: &mut dyn FnMut(Warning<'_>)) -> Self {
        let mut config = Self::DEFAULT;
        let mut seen = [false; KEYS.len()];
        let mut smear_port = None;
        let mut secret = false;
        for word in cmdline.split_ascii_whitespace() {
            // A key that was written with blanks goes on in the next words.
            secret = could_be_secret(word) || secret && !word.contains('=');
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let Some(key) = KEYS.iter().position(|(key, _)| *key == name) else {
                warn(Warning {
                    word,
                    secret,
                    problem: Problem::UnknownKey,
                });
                continue;
            };
            if config.set(name, value).is_none() {
                match name {
                    "ntp.allow" | "ntp.deny" => config.policy.access.close(),
                    "ntp.auth" => config.policy.authenticated_only = true,
                    _ => {}
                }
                warn(Warning {
                    word,
                    secret,
                    problem: Problem::Malformed {
                        expected: KEYS[key].1,
                    },
                });
                continue;
            }
            if name == SMEAR_PORT {
                smear_port = Some(word);
            }
            if core::mem::replace(&mut seen[key], true) && !ADDING.contains(&name) {
                warn(Warning {
                    word,
                    secret,
                    problem: Problem::Repeated,
                });
            }
        }
        // Asked only now, because words may come in any order.
        if let (Smearing::Off, Some(word)) = (config.smear, smear_port) {
            config.smear_port = None;
            warn(Warning {
                word,
                secret: false,
                problem: Problem::NothingToSmear,
            });
        }
        config
    }

    /// Takes one value; `None` leaves everything as it was.
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "ip" => self.ip = Ip::parse(value)?,
            "serial" => {
                self.serial = match value {
                    "shell" => Serial::Shell,
                    "off" => Serial::Off,
                    _ => return None,
                }
            }
            "idle" => {
                self.idle = match value {
                    "halt" => Idle::Halt,
                    "poll" => Idle::Poll,
                    _ => return None,
                }
            }
            "ntp.stratum" => {
                self.stratum = digits(value).filter(|stratum| (1..=15).contains(stratum))?;
            }
            "ntp.allow" => self.policy.access.add(value, Rule::Allow)?,
            "ntp.deny" => self.policy.access.add(value, Rule::Deny)?,
            "ntp.key" => self.policy.keys.parse_word(value).ok()?,
            "ntp.auth" => {
                self.policy.authenticated_only = match value {
                    "optional" => false,
                    "require" => true,
                    _ => return None,
                }
            }
            "ntp.limit" => {
                self.policy.limit = match value {
                    "off" => None,
                    _ => Some(Limit::parse(value)?),
                }
            }
            "ntp.smear" => {
                self.smear = match value {
                    "off" => Smearing::Off,
                    "hint" => Smearing::Hint,
                    "noon" => Smearing::Always(Smear::NoonLinear),
                    "sls" => Smearing::Always(Smear::UtcSls),
                    _ => return None,
                }
            }
            SMEAR_PORT => {
                self.smear_port = Some(digits(value).filter(|port| !TAKEN_PORTS.contains(port))?);
            }
            "tai_offset" => self.tai_offset = Some(OperatorOffset::new(digits(value)?)?),
            "on_violation" => {
                self.conditions.on_violation = match value {
                    "serve" => OnViolation::Serve,
                    "alarm" => OnViolation::Alarm,
                    "stop" => OnViolation::Stop,
                    _ => return None,
                }
            }
            "drain" => {
                self.conditions.drain = match value {
                    "off" => Drain::Off,
                    "soon" => Drain::Soon,
                    "imminent" => Drain::Imminent,
                    _ => return None,
                }
            }
            "holdover.max" => self.conditions.holdover_max = Some(digits(value)?),
            "source" => {
                self.source = Choice::parse(value)?;
                self.conditions.serve_rtc = self.source.rtc_is_asked_for;
            }
            "vmclock" => self.vmclock = Some(page_address(value)?),
            _ => return None,
        }
        Some(())
    }
}

impl Ip {
    fn parse(value: &str) -> Option<Self> {
        if value == "dhcp" {
            return Some(Self::Dhcp);
        }
        let (network, gateway) = match value.split_once(',') {
            Some((network, gateway)) => (network, Some(gateway.parse().ok()?)),
            None => (value, None),
        };
        let (address, prefix) = network.split_once('/')?;
        let address = address.parse().ok()?;
        let prefix = digits(prefix).filter(|prefix| (1..=32).contains(prefix))?;
        let gateway_fits = gateway.is_none_or(|gateway| {
            gateway != address
                && if prefix == 32 {
                    is_unicast(gateway)
                } else {
                    is_host(gateway, prefix)
                        && network_of(gateway, prefix) == network_of(address, prefix)
                }
        });
        (is_host(address, prefix) && gateway_fits).then_some(Self::Static {
            address,
            prefix,
            gateway,
        })
    }
}

/// A word of the command line that was not taken as it stands. `Display` is a whole clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning<'a> {
    /// The word, as it came: untrusted text, shown escaped and cut by `Display`.
    pub word: &'a str,
    /// The word could be part of a key: `Display` shows no more of it than its name.
    pub secret: bool,
    /// What is the matter with it.
    pub problem: Problem,
}

/// What is the matter with a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No such key; the word is ignored.
    UnknownKey,
    /// The value is missing or not one of those allowed; the word is ignored.
    Malformed {
        /// The values that are.
        expected: &'static str,
    },
    /// The key came before; this later value replaces the earlier one.
    Repeated,
    /// A port for a smeared service, and no smeared service; the word is ignored.
    NothingToSmear,
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Characters of the word that are shown.
        const SHOWN: usize = 64;
        f.write_str("command line: `")?;
        let shown = match self.word.split_once('=') {
            _ if !self.secret => self.word,
            Some((name, _)) if KEYS.iter().any(|(key, _)| *key == name) => name,
            _ => "",
        };
        for c in shown.chars().take(SHOWN) {
            write!(f, "{}", c.escape_debug())?;
        }
        if self.secret {
            f.write_str("(not shown)")?;
        } else if self.word.chars().nth(SHOWN).is_some() {
            f.write_str("...")?;
        }
        match self.problem {
            Problem::UnknownKey => f.write_str("` is not a known key, ignored"),
            Problem::Malformed { expected } => write!(f, "` ignored, expected {expected}"),
            Problem::Repeated => f.write_str("` replaces the value given before"),
            Problem::NothingToSmear => {
                f.write_str("` ignored, it needs ntp.smear=hint, ntp.smear=noon or ntp.smear=sls")
            }
        }
    }
}

/// The keys, and what each expects in the words of a warning.
const KEYS: [(&str, &str); 16] = [
    (
        "ip",
        "ip=dhcp or ip=ADDR/LEN[,GATEWAY] with unicast addresses of one network",
    ),
    ("serial", "serial=shell or serial=off"),
    ("idle", "idle=halt or idle=poll"),
    ("ntp.stratum", "ntp.stratum=1 to ntp.stratum=15"),
    (
        "ntp.allow",
        "ntp.allow=ADDR/LEN,... and at most 32 prefixes; nobody is answered until this is mended",
    ),
    (
        "ntp.deny",
        "ntp.deny=ADDR/LEN,... and at most 32 prefixes; nobody is answered until this is mended",
    ),
    (
        "ntp.limit",
        "ntp.limit=off or ntp.limit=BURST,INTERVAL with 1 to 1000 and 1ms to 3600s",
    ),
    (
        "ntp.key",
        "ntp.key=ID:AES128:HEX or ntp.key=ID:AES256:HEX, each number once, and at most 16 keys",
    ),
    (
        "ntp.auth",
        "ntp.auth=optional or ntp.auth=require, which is assumed now",
    ),
    (
        "ntp.smear",
        "ntp.smear=off, ntp.smear=hint, ntp.smear=noon or ntp.smear=sls",
    ),
    (
        SMEAR_PORT,
        "ntp.smear.port=PORT, 1 to 65535 but not 67, 68 or 123",
    ),
    ("tai_offset", "tai_offset=10 to tai_offset=60"),
    (
        "on_violation",
        "on_violation=serve, on_violation=alarm or on_violation=stop",
    ),
    ("drain", "drain=off, drain=soon or drain=imminent"),
    ("holdover.max", "holdover.max=SECONDS, 0 to 4294967295"),
    (
        "vmclock",
        "vmclock=ADDR, a page-aligned address, decimal or 0x hexadecimal",
    ),
];
const SMEAR_PORT: &str = "ntp.smear.port";

/// Ports that the smeared service cannot have: no port at all, DHCP's two, and the plain service's.
const TAKEN_PORTS: [u16; 4] = [0, 67, 68, ntp::PORT];

/// The keys of which every word adds to the others.
const ADDING: [&str; 3] = ["ntp.allow", "ntp.deny", "ntp.key"];

/// Whether a word says `key`, or looks like one by its prefix or its many hexadecimal digits.
fn could_be_secret(word: &str) -> bool {
    let says = |what: &str| {
        let mut windows = word.as_bytes().windows(what.len());
        windows.any(|window| window.eq_ignore_ascii_case(what.as_bytes()))
    };
    let mut runs = word.split(|c: char| !c.is_ascii_hexdigit());
    says("key") || says("hex:") || says("ascii:") || runs.any(|run| run.len() >= 32)
}

/// A decimal number of digits only: no sign, no blanks.
fn digits<T: TryFrom<u64>>(text: &str) -> Option<T> {
    number(text, 10)?.try_into().ok()
}

fn page_address(text: &str) -> Option<u64> {
    let address = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hexadecimal) => number(hexadecimal, 16)?,
        None => number(text, 10)?,
    };
    (address != 0 && address.is_multiple_of(4096)).then_some(address)
}

fn number(text: &str, radix: u32) -> Option<u64> {
    // from_str_radix would let a leading plus sign through.
    let all_digits = text.bytes().all(|byte| char::from(byte).is_digit(radix));
    if all_digits {
        u64::from_str_radix(text, radix).ok()
    } else {
        None
    }
}

/// An address that can belong to one host on a network of this prefix length.
fn is_host(address: Ipv4Addr, prefix: u8) -> bool {
    // RFC 3021: a network of two has no broadcast address; a network of one has no network.
    let host_bits = !network_mask(prefix);
    let host = address.to_bits() & host_bits;
    is_unicast(address) && (prefix >= 31 || (host != 0 && host != host_bits))
}

fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback()
}

fn network_of(address: Ipv4Addr, prefix: u8) -> u32 {
    address.to_bits() & network_mask(prefix)
}

fn network_mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn parse(cmdline: &str) -> (Config, Vec<String>) {
        let mut warnings = Vec::new();
        let config = Config::parse(cmdline, &mut |warning| warnings.push(warning.to_string()));
        (config, warnings)
    }

    #[test]
    fn an_empty_line_is_the_default() {
        for line in ["", " ", "\t\n  \r"] {
            assert_eq!(parse(line), (Config::DEFAULT, Vec::new()));
        }
    }

    #[test]
    fn every_key_is_read() {
        let (config, warnings) = parse(
            "ip=192.168.7.2/24,192.168.7.1  serial=off\tidle=poll ntp.stratum=3 vmclock=0xfeffb000 \
             ntp.smear.port=1123 ntp.smear=noon tai_offset=37 on_violation=stop drain=soon \
             holdover.max=3600 ntp.allow=192.168.7.0/24 ntp.allow=10.0.0.1,fd00::/8 \
             ntp.deny=192.168.7.9 ntp.limit=8,8s ntp.auth=require \
             ntp.key=1:AES128:2b7e151628aed2a6abf7158809cf4f3c \
             ntp.key=2:AES128:HEX:000102030405060708090a0b0c0d0e0f",
        );
        let mut policy = Policy {
            limit: Limit::parse("8,8s"),
            authenticated_only: true,
            ..Policy::OPEN
        };
        for (list, rule) in [
            ("192.168.7.0/24,10.0.0.1,fd00::/8", Rule::Allow),
            ("192.168.7.9", Rule::Deny),
        ] {
            assert!(policy.access.add(list, rule).is_some());
        }
        for word in [
            "1:AES128:2b7e151628aed2a6abf7158809cf4f3c",
            "2:AES128:000102030405060708090a0b0c0d0e0f",
        ] {
            assert!(policy.keys.parse_word(word).is_ok());
        }
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            config,
            Config {
                ip: Ip::Static {
                    address: Ipv4Addr::new(192, 168, 7, 2),
                    prefix: 24,
                    gateway: Some(Ipv4Addr::new(192, 168, 7, 1)),
                },
                serial: Serial::Off,
                idle: Idle::Poll,
                stratum: 3,
                policy,
                smear: Smearing::Always(Smear::NoonLinear),
                smear_port: Some(1123),
                tai_offset: OperatorOffset::new(37),
                conditions: Conditions {
                    on_violation: OnViolation::Stop,
                    drain: Drain::Soon,
                    holdover_max: Some(3600),
                },
                vmclock: Some(0xfeff_b000),
            }
        );
        assert_eq!(
            parse(
                "ip=dhcp serial=shell idle=halt ntp.stratum=1 ntp.smear=off on_violation=alarm drain=off"
            )
            .0,
            Config::DEFAULT
        );
    }

    #[test]
    fn good_values() {
        for value in [
            "10.0.2.15/24",
            "10.0.2.15/24,10.0.2.2",
            "10.1.1.0/31",
            "10.1.1.1/31,10.1.1.0",
        ] {
            assert!(
                matches!(Ip::parse(value), Some(Ip::Static { .. })),
                "{value}"
            );
        }
        assert!(
            Ip::parse("203.0.113.9/32,10.0.0.1").is_some(),
            "any router for a host route"
        );
        for (value, address) in [
            ("4096", 4096),
            ("4278169600", 0xfeff_b000),
            ("0xFEFFB000", 0xfeff_b000),
            ("0Xfeffb000", 0xfeff_b000),
            ("0xfffffffffffff000", 0xffff_ffff_ffff_f000),
        ] {
            assert_eq!(page_address(value), Some(address), "{value}");
        }
        for stratum in 1..=15 {
            assert_eq!(
                parse(&std::format!("ntp.stratum={stratum}")).0.stratum,
                stratum
            );
        }
    }

    #[test]
    fn every_word_has_its_meaning() {
        for (word, smear) in [
            ("off", Smearing::Off),
            ("hint", Smearing::Hint),
            ("noon", Smearing::Always(Smear::NoonLinear)),
            ("sls", Smearing::Always(Smear::UtcSls)),
        ] {
            assert_eq!(parse(&std::format!("ntp.smear={word}")).0.smear, smear);
        }
        for (word, on_violation) in [
            ("serve", OnViolation::Serve),
            ("alarm", OnViolation::Alarm),
            ("stop", OnViolation::Stop),
        ] {
            let config = parse(&std::format!("on_violation={word}")).0;
            assert_eq!(config.conditions.on_violation, on_violation);
        }
        for (word, drain) in [
            ("off", Drain::Off),
            ("soon", Drain::Soon),
            ("imminent", Drain::Imminent),
        ] {
            assert_eq!(
                parse(&std::format!("drain={word}")).0.conditions.drain,
                drain
            );
        }
        for seconds in [0, 1, 86_400, u32::MAX] {
            let config = parse(&std::format!("holdover.max={seconds}")).0;
            assert_eq!(config.conditions.holdover_max, Some(seconds));
        }
        for offset in [10, 37, 60] {
            let config = parse(&std::format!("tai_offset={offset}")).0;
            assert_eq!(
                config.tai_offset.map(OperatorOffset::tai_minus_utc),
                Some(offset)
            );
        }
        for port in [1, 66, 69, 122, 124, 1123, 65_535] {
            let (config, warnings) = parse(&std::format!("ntp.smear=sls ntp.smear.port={port}"));
            assert_eq!((config.smear_port, warnings.len()), (Some(port), 0));
        }
    }

    #[test]
    fn a_port_needs_something_to_serve() {
        for line in [
            "ntp.smear.port=1123",
            "ntp.smear=off ntp.smear.port=1123",
            "ntp.smear=noon ntp.smear.port=1123 ntp.smear=off",
        ] {
            let (config, warnings) = parse(line);
            assert_eq!(config, Config::DEFAULT, "{line}");
            assert_eq!(
                warnings.last().map(String::as_str),
                Some(
                    "command line: `ntp.smear.port=1123` ignored, it needs ntp.smear=hint, \
                     ntp.smear=noon or ntp.smear=sls"
                ),
                "{line}"
            );
        }
        let (config, warnings) = parse("ntp.smear=hint ntp.smear.port=1123");
        assert_eq!((config.smear_port, warnings.len()), (Some(1123), 0));
    }

    #[test]
    fn malformed_values_are_named_and_change_nothing() {
        for word in [
            "ip=",
            "ip",
            "ip=static",
            "ip=DHCP",
            "ip=10.0.2.15",
            "ip=10.0.2.15/",
            "ip=10.0.2.15/0",
            "ip=10.0.2.15/33",
            "ip=10.0.2.15/+24",
            "ip=10.0.2.15/24,",
            "ip=10.0.2.15/24,10.0.3.1",
            "ip=10.0.2.15/24,10.0.2.15",
            "ip=10.0.2.15/24,10.0.2.255",
            "ip=10.0.2.15/24,10.0.2.2,1",
            "ip=10.0.2.0/24",
            "ip=10.0.2.255/24",
            "ip=0.0.0.0/8",
            "ip=127.0.0.1/8",
            "ip=224.0.0.1/4",
            "ip=255.255.255.255/32",
            "ip=10.0.2/24",
            "ip=10.0.2.15.1/24",
            "ip=fe80::1/64",
            "ip=1.2.3.4/32,0.0.0.0",
            "ip=010.0.2.15/24",
            "serial=",
            "serial=on",
            "serial=nmea",
            "serial",
            "idle=adaptive",
            "idle=",
            "idle=HALT",
            "ntp.stratum=0",
            "ntp.stratum=16",
            "ntp.stratum=256",
            "ntp.stratum=-1",
            "ntp.stratum=+1",
            "ntp.stratum=",
            "ntp.stratum=1.0",
            "ntp.stratum=99999999999999999999999",
            "ntp.limit=",
            "ntp.limit=on",
            "ntp.limit=8",
            "ntp.limit=8,8",
            "ntp.smear=",
            "ntp.smear=on",
            "ntp.smear=NOON",
            "ntp.smear.port=",
            "ntp.smear.port=0",
            "ntp.smear.port=67",
            "ntp.smear.port=68",
            "ntp.smear.port=123",
            "ntp.smear.port=65536",
            "ntp.smear.port=+1123",
            "tai_offset=",
            "tai_offset=9",
            "tai_offset=61",
            "tai_offset=-37",
            "tai_offset=37.0",
            "tai_offset=65573",
            "on_violation=",
            "on_violation=halt",
            "drain=",
            "drain=on",
            "holdover.max=",
            "holdover.max=none",
            "holdover.max=-1",
            "holdover.max=1h",
            "holdover.max=4294967296",
            "vmclock=",
            "vmclock=0",
            "vmclock=0x",
            "vmclock=feffb000",
            "vmclock=0xfeffb001",
            "vmclock=0x1000g",
            "vmclock=-4096",
            "vmclock=+4096",
            "vmclock=0x10000000000000000",
            "vmclock=0x+1000",
            "vmclock=0x0",
        ] {
            let (config, warnings) = parse(word);
            assert_eq!(config, Config::DEFAULT, "{word}");
            let [warning] = warnings.as_slice() else {
                panic!("{word}: {warnings:?}")
            };
            assert!(
                warning.contains(word) && warning.contains("ignored, expected"),
                "{warning}"
            );
        }
    }

    #[test]
    fn an_access_list_that_is_not_understood_lets_nobody_in() {
        for word in [
            "ntp.allow=",
            "ntp.allow",
            "ntp.allow=all",
            "ntp.deny=10.0.0.0/33",
            "ntp.deny=10.0.0.0/8,",
            "ntp.deny=10.0.0.1/8",
        ] {
            let (config, warnings) = parse(&std::format!("ntp.allow=10.0.0.0/8 {word}"));
            let client = Ipv4Addr::new(10, 0, 0, 1).into();
            assert!(!config.policy.access.permits(client), "{word}");
            let [warning] = warnings.as_slice() else {
                panic!("{word}: {warnings:?}")
            };
            assert!(
                warning.contains(word) && warning.contains("nobody is answered"),
                "{warning}"
            );
        }
    }

    #[test]
    fn authentication_that_is_not_understood_is_required() {
        for word in ["ntp.auth=", "ntp.auth", "ntp.auth=yes"] {
            let (config, warnings) = parse(word);
            assert!(
                config.policy.authenticated_only && warnings.len() == 1,
                "{word}"
            );
        }
        let (config, warnings) = parse("ntp.auth=require ntp.auth=optional");
        assert!(!config.policy.authenticated_only && warnings.len() == 1);
    }

    #[test]
    fn no_warning_shows_a_key() {
        let key = "2B7E151628AED2A6ABF7158809CF4F3C";
        for line in [
            std::format!("ntp.key=1:AES128:{key}0"),
            std::format!("ntp.key=1:MD5:{key}"),
            std::format!("ntp.key=1:AES128:{key} ntp.key=1:AES128:{key}"),
            std::format!("ntp.key=1 AES128 HEX:{key}"),
            std::format!("ntp.key=1 AES128 {key}"),
            String::from("ntp.key 1 AES128 2B7E 1516 28AE"),
            std::format!("ntp.key1:AES128:{key}"),
            std::format!("ntp.keys=1:AES128:{key}"),
            std::format!("NTP.KEY=1:AES128:{key}"),
            std::format!("{key}=ntp.key"),
            std::format!("ntp.limit={key}"),
            std::format!("1:AES128:{key}"),
            String::from("1:AES128:hex:2B7E"),
        ] {
            let (_, warnings) = parse(&line);
            assert!(!warnings.is_empty(), "{line}");
            for warning in warnings {
                assert!(!warning.contains("2B7E"), "{line}: {warning}");
                assert!(warning.contains("(not shown)`"), "{line}: {warning}");
            }
        }
        assert_eq!(
            parse("ntp.key=1:AES128:00").1,
            [
                "command line: `ntp.key(not shown)` ignored, expected ntp.key=ID:AES128:HEX or \
              ntp.key=ID:AES256:HEX, each number once, and at most 16 keys"
            ]
        );
        // What comes after the key is shown again.
        assert_eq!(
            parse("ntp.key=1 AES128 00 ip=x")
                .1
                .last()
                .map(String::as_str),
            Some(
                "command line: `ip=x` ignored, expected ip=dhcp or ip=ADDR/LEN[,GATEWAY] with \
                  unicast addresses of one network"
            )
        );
    }

    #[test]
    fn unknown_keys_are_named_and_the_rest_is_read() {
        let (config, warnings) = parse("quiet console=ttyS0 ntp.stratum=2 =x IP=dhcp");
        assert_eq!(config.stratum, 2);
        assert_eq!(
            warnings,
            [
                "command line: `quiet` is not a known key, ignored",
                "command line: `console=ttyS0` is not a known key, ignored",
                "command line: `=x` is not a known key, ignored",
                "command line: `IP=dhcp` is not a known key, ignored",
            ]
        );
    }

    #[test]
    fn the_last_good_value_wins() {
        let (config, warnings) = parse("ntp.stratum=2 ntp.stratum=5 ntp.stratum=77");
        assert_eq!(config.stratum, 5);
        assert_eq!(
            warnings,
            [
                "command line: `ntp.stratum=5` replaces the value given before",
                "command line: `ntp.stratum=77` ignored, expected ntp.stratum=1 to ntp.stratum=15",
            ]
        );
        assert_eq!(
            parse("idle=x idle=poll").1.len(),
            1,
            "a bad value is not a value before"
        );
    }

    #[test]
    fn warnings_are_short_and_printable() {
        let (_, warnings) = parse(&std::format!("a\u{1b}[2J\u{7}{}", "x".repeat(5000)));
        let [warning] = warnings.as_slice() else {
            panic!("{warnings:?}")
        };
        assert!(
            warning.contains("\\u{1b}[2J\\u{7}xxx") && warning.contains("xxx...`"),
            "{warning}"
        );
        assert!(
            !warning.contains(char::is_control) && warning.len() < 150,
            "{warning}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(line: String) {
            let _ = parse(&line);
        }

        #[test]
        fn almost_right_text_keeps_the_promises(
            line in "((ip|serial|idle|ntp\\.stratum|ntp\\.smear|ntp\\.smear\\.port|tai_offset|drain|vmclock|x)\
             =?(dhcp|off|poll|soon|noon|0x|[0-9./,]{0,20}) ?){0,6}",
        ) {
            let (config, _) = parse(&line);
            prop_assert!((1..=15).contains(&config.stratum));
            prop_assert!(config.vmclock.is_none_or(|address| address != 0 && address % 4096 == 0));
            prop_assert!(config.smear_port.is_none_or(|port| !TAKEN_PORTS.contains(&port)));
            prop_assert!(config.smear_port.is_none() || config.smear != Smearing::Off);
            if let Ip::Static { address, prefix, gateway } = config.ip {
                prop_assert!((1..=32).contains(&prefix) && is_unicast(address));
                prop_assert!(gateway != Some(address));
            }
        }
    }
}
