//! The command line: `key=value` words separated by white space.
//!
//! | Key | Values | Default |
//! |---|---|---|
//! | `ip` | `dhcp`, or `ADDR/LEN[,GATEWAY]` (IPv4) | `dhcp` |
//! | `ip6` | `auto`, `off`, or `ADDR/LEN` (IPv6) | `auto` |
//! | `serial` | `shell`, `nmea`, `json[,SECONDS]`, `log`, `off` | `shell` |
//! | `serial2` | `nmea`, `json[,SECONDS]`, `off` | `off` |
//! | `http` | `on`, `off`: the status over HTTP ([`http`](crate::http)) | `on` |
//! | `idle` | `adaptive`, `halt`, `poll` | `adaptive` |
//! | `ntp.stratum` | `1` to `15` | `1` |
//! | `ntp.allow`, `ntp.deny` | `ADDR/LEN` or `ADDR`, comma separated ([`access`](crate::serve::access)) | everybody is answered |
//! | `ntp.limit` | `off`, or `BURST,INTERVAL` such as `8,8s` ([`limit`](crate::serve::limit)) | `off` |
//! | `ntp.key` | `ID:AES128:HEX` or `ID:AES256:HEX` ([`auth`](crate::serve::auth)) | none |
//! | `ntp.auth` | `optional`, `require` | `optional` |
//! | `ntp.smear` | `off`, `hint`, `noon`, `sls` | `off` |
//! | `ntp.smear.port` | a UDP port beside 123 for the smeared service | none: 123 is smeared |
//! | `tai_offset` | TAI − UTC in seconds, `10` to `60` | the page's |
//! | `on_violation` | `serve`, `alarm`, `stop` | `alarm` |
//! | `on_panic` | `exit`, `halt`, `reboot`: what a failure of our own ends in ([`OnPanic`]) | `exit` |
//! | `drain` | `off`, `soon`, `imminent` | `off` |
//! | `holdover.max` | seconds | no limit |
//! | `source` | `auto`, or names separated by commas: `vmclock`, `kvm`, `virtio-rtc`, `ntp:ADDR`, `rtc`, `auto` ([`source`](crate::source)) | `auto` |
//! | `firmware` | `auto`, `acpi`: where an Arm machine's description comes from ([`Firmware`]) | `auto` |
//! | `smoke` | nothing, or seconds: run the smoke test ([`smoke`]) in place of the service, watching the page for so long | no smoke test; 3 seconds |
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

mod ip;
mod warning;

use gnomon_clock::{OperatorOffset, Smear};

use crate::duty::{Conditions, Drain, OnViolation};
use crate::serve::access::Rule;
use crate::serve::limit::Limit;
use crate::serve::ntp;
use crate::serve::responder::Policy;
use crate::smoke;
use crate::source::Choice;

pub(crate) use self::ip::is_host;
pub use self::ip::{Ip, Ip6};
use self::warning::{ADDING, KEYS, SMEAR_PORT, could_be_secret};
pub use self::warning::{Problem, Warning};

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `ip=`: where the IPv4 address comes from.
    pub ip: Ip,
    /// `ip6=`: where the IPv6 addresses come from.
    pub ip6: Ip6,
    /// `serial=`: what runs on the serial console.
    pub serial: Serial,
    /// `serial2=`: what runs on the second serial port: `Off`, `Nmea` or `Json`.
    pub serial2: Serial,
    /// `http=`: whether the status is served over HTTP.
    pub http: bool,
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
    /// `on_panic=`: what a failure of our own ends in.
    pub on_panic: OnPanic,
    /// `source=`: where the time may come from.
    pub source: Choice,
    /// `firmware=`: where an Arm machine's description comes from.
    pub firmware: Firmware,
    /// `smoke`: the smoke test in place of the service, and for how many seconds it watches the page.
    pub smoke: Option<u16>,
    /// `vmclock=`: physical address of the vmclock page, in place of discovery.
    pub vmclock: Option<u64>,
}

/// What runs on a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serial {
    /// The prompt of [`shell`](crate::shell), and log lines.
    Shell,
    /// The time once a second as NMEA 0183, and nothing else.
    Nmea,
    /// The time as a JSON object for each line that is received, and nothing else.
    Json {
        /// One unasked whenever the second is a multiple of this, 1 to 3600.
        period: Option<u16>,
    },
    /// Log lines; input is ignored. The same as `Off`.
    Log,
    /// Input is ignored. Log lines are written to the first port all the same; the second is left alone.
    Off,
}

impl Serial {
    fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "shell" => Self::Shell,
            "nmea" => Self::Nmea,
            "json" => Self::Json { period: None },
            "log" => Self::Log,
            "off" => Self::Off,
            _ => {
                let period = digits(value.strip_prefix("json,")?)?;
                let period = Some(period).filter(|period| (1..=3600).contains(period));
                Self::Json {
                    period: Some(period?),
                }
            }
        })
    }

    /// Whether the port gives the time to programs, and so says nothing else.
    #[must_use]
    pub const fn is_time(self) -> bool {
        matches!(self, Self::Nmea | Self::Json { .. })
    }
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
    /// Keep looking for a short while after each frame, and sleep then.
    Adaptive,
    /// Sleep until the next interrupt.
    Halt,
    /// Keep looking: the quickest answer, at the price of a whole host CPU.
    Poll,
}

/// Where the description of an Arm machine comes from. A PC's is ACPI's, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// The device tree; where that names no interrupt controller, ACPI's tables.
    Auto,
    /// ACPI's tables, which QEMU gives without any firmware in between
    /// ([`loader`](crate::discover::loader)).
    Acpi,
}

/// What a panic or an unexpected exception ends in, once it has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// The virtual machine ends with a status that tells of it, where it has a device for that (`isa-debug-exit`,
    /// semihosting); elsewhere as `Halt`. The default: whoever supervises the machine sees that it has failed and decides,
    /// and the report is the last thing on its console.
    Exit,
    /// The processor stops for ever: nothing is answered, and memory stays as it was for whoever wants to look at it.
    Halt,
    /// The machine is restarted, and right again at once; a failure that comes back does so for ever.
    Reboot,
}

impl OnPanic {
    fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "exit" => Self::Exit,
            "halt" => Self::Halt,
            "reboot" => Self::Reboot,
            _ => return None,
        })
    }
}

impl Config {
    /// What holds when the command line is empty.
    pub const DEFAULT: Self = Self {
        ip: Ip::Dhcp,
        ip6: Ip6::Auto,
        serial: Serial::Shell,
        serial2: Serial::Off,
        http: true,
        idle: Idle::Adaptive,
        stratum: 1,
        policy: Policy::OPEN,
        smear: Smearing::Off,
        smear_port: None,
        tai_offset: None,
        conditions: Conditions::DEFAULT,
        on_panic: OnPanic::Exit,
        source: Choice::AUTO,
        firmware: Firmware::Auto,
        smoke: None,
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
            "ip6" => self.ip6 = Ip6::parse(value)?,
            "serial" => self.serial = Serial::parse(value)?,
            "serial2" => {
                let second = Serial::parse(value)?;
                self.serial2 = Some(second).filter(|it| it.is_time() || *it == Serial::Off)?;
            }
            "http" => {
                self.http = match value {
                    "on" => true,
                    "off" => false,
                    _ => return None,
                }
            }
            "idle" => {
                self.idle = match value {
                    "adaptive" => Idle::Adaptive,
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
            "on_panic" => self.on_panic = OnPanic::parse(value)?,
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
            "firmware" => {
                self.firmware = match value {
                    "auto" => Firmware::Auto,
                    "acpi" => Firmware::Acpi,
                    _ => return None,
                }
            }
            "smoke" => {
                self.smoke = Some(match value {
                    "" => smoke::SECONDS,
                    _ => digits(value).filter(|seconds| (1..=3600).contains(seconds))?,
                });
            }
            "vmclock" => self.vmclock = Some(page_address(value)?),
            _ => return None,
        }
        Some(())
    }
}

/// Ports that the smeared service cannot have: no port at all, DHCP's two, and the plain service's.
const TAKEN_PORTS: [u16; 4] = [0, 67, 68, ntp::PORT];

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

#[cfg(test)]
mod tests;
