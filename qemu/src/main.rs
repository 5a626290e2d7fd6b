//! `gnomon-qemu`: starts a guest under QEMU with the host's time in its vmclock page, or publishes
//! the time into a QEMU that runs already.

use core::error::Error;
use core::time::Duration;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use gnomon_qemu::attend::{Finish, Signals, attend};
use gnomon_qemu::machine::{
    Accel, Board, Firmware, HTTP_PORT, Machine, NTP_PORT, Net, STATUS_FAILURE, SerialTo,
};
use gnomon_qemu::page::{Reference, Scale};
use gnomon_qemu::publish::{Host, Notice, Options, Publisher};
use gnomon_qemu::qmp::Qmp;
use gnomon_qemu::smoke::{Verdict, follow};
use gnomon_qemu::{Arch, End, Scenario, Vm};

const QEMU_HELP: &str = "QEMU to start [default: $GNOMON_QEMU, or qemu-system-ARCH in PATH]";

fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = Signals::block()
        .map_err(Into::into)
        .and_then(|signals| match command.verb {
            Verb::Run(run) => run.run(&signals),
            Verb::Smoke(smoke) => Ok(smoke.run(&signals)),
            Verb::Publish(publish) => publish.run(&signals),
        });
    outcome.unwrap_or_else(|error| {
        say(&error.to_string());
        ExitCode::FAILURE
    })
}

/// Runs Gnomon under QEMU and publishes the host's time into the guest's vmclock page.
#[derive(Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Starts a guest, with the host's time in its vmclock page.
    Run(Run),
    /// Runs the guest's smoke test: TAP on standard output; exit status 0 when no check fails, 1 when
    /// one does, 2 when they could not be made.
    Smoke(Smoke),
    /// Publishes the host's time into a QEMU that runs already, with any guest.
    Publish(Publish),
}

// Of options given twice the last counts, so that a Makefile's can be overridden.
#[derive(Args)]
#[command(args_override_self = true)]
struct Run {
    #[command(flatten)]
    guest: Guest,
    /// UDP port of 127.0.0.1 that leads to the guest's NTP server (with --net user)
    #[arg(long, value_name = "PORT", default_value_t = NTP_PORT)]
    ntp: u16,
    /// TCP port of 127.0.0.1 that leads to the guest's HTTP server (with --net user); 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = HTTP_PORT)]
    http: u16,
    /// stdio, pty, or a file that takes what the guest says
    #[arg(long, value_name = "WHERE", default_value = "stdio", value_parser = parse_serial)]
    serial: SerialTo,
    /// Ends after this time
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The NTP server's keys, in chrony's format
    #[arg(long, value_name = "FILE")]
    ntp_keys: Option<PathBuf>,
}

#[derive(Args)]
#[command(args_override_self = true)]
struct Smoke {
    #[command(flatten)]
    guest: Guest,
    /// For how long the guest watches the page [default: 3, or as long as the scenario and 2 more]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    watch: Option<u16>,
}

/// A guest and what it runs on.
#[derive(Args)]
struct Guest {
    /// Architecture of the guest
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Board [default: q35, or virt on aarch64]
    #[arg(long, value_enum)]
    machine: Option<Board>,
    /// What a PC runs before the guest: quick (qboot, where QEMU has it), or qemu's own
    #[arg(long, value_enum, default_value = "quick", hide_possible_values = true)]
    firmware: Firmware,
    /// What runs the guest's instructions; kvm only with --no-publish
    #[arg(long, value_enum, default_value = "tcg")]
    accel: Accel,
    /// Processor model, in QEMU's words
    #[arg(long, value_name = "MODEL", default_value = "max")]
    cpu: String,
    /// Memory of the guest
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    memory: u32,
    /// user, none, tap:INTERFACE, or unix:LOCAL:REMOTE (datagram sockets)
    #[arg(long, value_name = "NETWORK", default_value = "user", value_parser = parse_net)]
    net: Net,
    #[command(flatten)]
    page: Page,
    /// Command line of the guest
    #[arg(long, value_name = "STRING", default_value = "")]
    append: String,
    #[arg(long, value_name = "PATH", help = QEMU_HELP)]
    qemu: Option<PathBuf>,
    /// Leaves the vmclock page as QEMU makes it: without time
    #[arg(long)]
    no_publish: bool,
    /// Adds a virtio real-time clock (QEMU 11.1), which tells the time without the page
    #[arg(long)]
    rtc: bool,
    /// Guest to start [default: Gnomon's image, beside this program or in build/]
    #[arg(long, value_name = "IMAGE")]
    kernel: Option<PathBuf>,
    /// Socket at which QEMU listens for a QMP client of yours
    #[arg(long, value_name = "SOCKET")]
    qmp: Option<PathBuf>,
}

#[derive(Args)]
#[command(args_override_self = true)]
struct Publish {
    /// QMP socket of the running QEMU
    #[arg(long, value_name = "SOCKET")]
    qmp: PathBuf,
    /// Process of that QEMU [default: whoever listens on the socket]
    #[arg(long)]
    pid: Option<u32>,
    /// Address of the page in the guest's memory [default: where QEMU or `run` puts it]
    #[arg(long = "page", value_name = "ADDRESS", value_parser = parse_address)]
    address: Option<u64>,
    #[command(flatten)]
    page: Page,
}

#[derive(Args)]
struct Page {
    /// Scale of the published time
    #[arg(long, value_enum, default_value = "tai")]
    time: Scale,
    /// What the published bound is a bound against: the host's clock as it is, or UTC, of which
    /// nothing is published while the kernel does not vouch for it
    #[arg(long, value_enum, default_value = "host")]
    reference: Reference,
    /// Time between two updates of the page
    #[arg(long, value_name = "MS", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000))]
    interval: u64,
    /// Plays the scenario in this file (qemu/scenarios has some)
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

impl Page {
    fn options(&self, page: Option<u64>) -> Options {
        Options {
            scale: self.time,
            reference: self.reference,
            interval: Duration::from_millis(self.interval),
            page,
            ..Options::default()
        }
    }

    fn scenario(&self) -> Result<Option<Scenario>, Box<dyn Error>> {
        let Some(path) = &self.scenario else {
            return Ok(None);
        };
        if self.reference == Reference::Utc {
            return Err("a scenario's time is not UTC: leave --reference utc out".into());
        }
        let named = |error: &dyn Error| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| named(&error))?;
        Ok(Some(Scenario::parse(&text).map_err(|error| named(&error))?))
    }
}

impl Guest {
    /// The machine, with these ports for the guest's NTP and HTTP servers, and the scenario to be played to it.
    fn machine(self, ntp: u16, http: u16) -> Result<(Machine, Option<Scenario>), Box<dyn Error>> {
        let kernel = match self.kernel {
            Some(kernel) => kernel,
            None => default_kernel(self.arch.image())?,
        };
        let scenario = self.page.scenario()?;
        if scenario.is_some() && self.no_publish {
            return Err("--no-publish and --scenario exclude each other".into());
        }
        let publish = (!self.no_publish).then(|| self.page.options(None));
        let mut machine = Machine::new(self.arch)
            .firmware(self.firmware)
            .accel(self.accel)
            .cpu(self.cpu)
            .memory(self.memory)
            .net(match self.net {
                Net::User { .. } => Net::User { ntp, http },
                net => net,
            })
            .kernel(kernel)
            .append(self.append)
            .rtc(self.rtc)
            .publish(publish);
        if let Some(board) = self.machine {
            machine = machine.board(board);
        }
        if let Some(qemu) = self.qemu {
            machine = machine.qemu(qemu);
        }
        if let Some(socket) = self.qmp {
            machine = machine.qmp_socket(socket);
        }
        Ok((machine, scenario))
    }
}

impl Run {
    fn run(self, signals: &Signals) -> Result<ExitCode, Box<dyn Error>> {
        let (machine, scenario) = self.guest.machine(self.ntp, self.http)?;
        let mut machine = machine
            .serial(self.serial.clone())
            .paused(scenario.is_some());
        if let Some(keys) = self.ntp_keys {
            machine = machine.ntp_keys(keys);
        }
        let mut vm = machine.start_with(notice())?;
        if let (Some(scenario), Some(publisher)) = (scenario, vm.publisher()) {
            // Before the machine runs, so that no other time is seen.
            publisher.play(scenario)?;
            vm.cont()?;
        }
        greet(&mut vm, &self.serial)?;
        match attend(&mut vm, signals, self.seconds.map(Duration::from_secs))? {
            Finish::Asked | Finish::Ended(End::Status(0)) => Ok(ExitCode::SUCCESS),
            Finish::Ended(end) => Ok(failure(&vm, end)),
        }
    }
}

impl Smoke {
    /// 0 when no check has failed, 1 when one has, 2 when they could not be made.
    fn run(self, signals: &Signals) -> ExitCode {
        const COULD_NOT_RUN: u8 = 2;
        self.verdict(signals).unwrap_or_else(|error| {
            say(&error.to_string());
            ExitCode::from(COULD_NOT_RUN)
        })
    }

    fn verdict(mut self, signals: &Signals) -> Result<ExitCode, Box<dyn Error>> {
        /// What a guest may take beside watching, on a machine with other things to do.
        const PATIENCE: Duration = Duration::from_mins(2);
        /// The scenario begins a little later than the guest begins to watch.
        const LATER: u64 = 2;
        /// What the guest takes.
        const LONGEST: u16 = 3600;
        let played = self.guest.page.scenario()?;
        // time_type is constant: the page has it before the guest looks.
        if let Some(scale) = played.as_ref().and_then(Scenario::first_scale) {
            self.guest.page.time = scale;
        }
        let played = played.map(|scenario| {
            let seconds = scenario.duration().as_secs() + 1 + LATER;
            u16::try_from(seconds).unwrap_or(LONGEST).min(LONGEST)
        });
        let watch = self.watch.or(played);
        let word = watch.map_or_else(|| "smoke".to_owned(), |seconds| format!("smoke={seconds}"));
        self.guest.append = format!("{} {word}", self.guest.append);
        let (mut machine, scenario) = self.guest.machine(0, 0)?;
        // A host of another date has a real-time clock of that date.
        if let Some(date) = scenario.as_ref().and_then(Scenario::first_date) {
            let date = date.to_string();
            let date = date.split('.').next().unwrap_or_default();
            machine = machine.arg("-rtc").arg(format!("base={date}"));
        }
        let mut vm = machine.start_with(notice())?;
        let limit = PATIENCE + Duration::from_secs(watch.unwrap_or(0).into());
        let mut show = |line: &str| {
            // Whoever has closed it does not want to know; the exit status is still right.
            let _unheard = writeln!(io::stdout(), "{line}");
        };
        match follow(&mut vm, scenario, signals, limit, &mut show)? {
            (Verdict::Passed, _) => Ok(ExitCode::SUCCESS),
            (Verdict::Failed, stream) => {
                say(&format!("failed: {}", stream.failed.join(", ")));
                Ok(ExitCode::FAILURE)
            }
            (Verdict::Incomplete(end), _) => {
                if let Some(end) = end {
                    let _status = failure(&vm, end);
                }
                Err("the guest has not come to the end of its checks".into())
            }
        }
    }
}

impl Publish {
    fn run(self, signals: &Signals) -> Result<ExitCode, Box<dyn Error>> {
        let mut qmp = Qmp::connect(&self.qmp)
            .map_err(|error| format!("no QMP at {}: {error}", self.qmp.display()))?;
        let pid = self.pid.or_else(|| qmp.peer_pid());
        let pid = pid.ok_or("the process at the socket is not known: name it with --pid")?;
        let options = self.page.options(self.address);
        let scenario = self.page.scenario()?;
        let host = Host::new(Arch::of(&mut qmp)?)?;
        let publisher = Publisher::attach(qmp, pid, host, options, notice())?;
        if let Some(scenario) = scenario {
            publisher.play(scenario)?;
        }
        say(&format!(
            "publishing into QEMU's process {pid}; Ctrl-C ends it"
        ));
        publisher.join_or(signals)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Says what the user can do now.
fn greet(vm: &mut Vm, serial: &SerialTo) -> Result<(), Box<dyn Error>> {
    if let Some(port) = vm.ntp_port() {
        say("from another terminal, ask it for the time:");
        say(&format!(
            "  chronyd -Q -t 5 'server 127.0.0.1 port {port} iburst'"
        ));
        say(match port {
            123 => "  ntpdig 127.0.0.1",
            _ => {
                "  ntpdig 127.0.0.1        (asks port 123 only: start this with --ntp 123, as root)"
            }
        });
    }
    if let Some(port) = vm.http_port() {
        say(&format!("and look at http://127.0.0.1:{port}/"));
    }
    if let Some(pty) = vm.pty()? {
        say(&format!("serial line: {pty}"));
    }
    if *serial != SerialTo::Pty {
        say("Ctrl-C ends it");
    }
    Ok(())
}

/// Says why QEMU has ended, and gives its exit status on.
fn failure(vm: &Vm, end: End) -> ExitCode {
    match end {
        End::Status(STATUS_FAILURE) => {
            say("the guest has failed: a trap or a panic (exit status 99)");
        }
        End::Status(status) => say(&format!("QEMU has ended with exit status {status}")),
        End::Signal(signal) => say(&format!("QEMU was killed by signal {signal}")),
    }
    for line in vm.complaints().lines() {
        say(line);
    }
    match end {
        End::Status(status) => u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from),
        End::Signal(_) => ExitCode::FAILURE,
    }
}

/// The image of this name, in `build/` or beside this program.
fn default_kernel(image: &str) -> Result<PathBuf, Box<dyn Error>> {
    let beside = env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join(image)));
    let candidates = beside.into_iter().chain([Path::new("build").join(image)]);
    let found = candidates.into_iter().find(|image| image.is_file());
    found.ok_or_else(|| {
        format!("there is no build/{image}: run `make build`, or name a guest with --kernel").into()
    })
}

fn notice() -> Notice {
    Box::new(say)
}

/// To standard error: standard output is the guest's.
fn say(line: &str) {
    // Whoever has closed it does not want to know.
    let _unheard = writeln!(io::stderr(), "gnomon-qemu: {line}");
}

const USER: Net = Net::User {
    ntp: NTP_PORT,
    http: HTTP_PORT,
};

fn parse_net(word: &str) -> Result<Net, String> {
    let mut parts = word.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("user"), None, None) => Ok(USER),
        (Some("none"), None, None) => Ok(Net::None),
        (Some("tap"), Some(name), None) if !name.is_empty() => Ok(Net::Tap(name.to_owned())),
        (Some("unix"), Some(local), Some(remote)) if !local.is_empty() && !remote.is_empty() => {
            Ok(Net::Unix {
                local: local.into(),
                remote: remote.into(),
            })
        }
        _ => Err("expected user, none, tap:INTERFACE or unix:LOCAL:REMOTE".to_owned()),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a clap parser")]
fn parse_serial(word: &str) -> Result<SerialTo, String> {
    Ok(match word {
        "stdio" => SerialTo::Stdout,
        "pty" => SerialTo::Pty,
        file => SerialTo::File(file.into()),
    })
}

fn parse_address(word: &str) -> Result<u64, String> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    number.map_err(|_| "expected an address, such as 0xfeffb000".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn networks_are_read() {
        assert_eq!(parse_net("user"), Ok(USER));
        assert_eq!(parse_net("none"), Ok(Net::None));
        assert_eq!(parse_net("tap:gnomon0"), Ok(Net::Tap("gnomon0".to_owned())));
        let unix = Net::Unix {
            local: "/a".into(),
            remote: "/b".into(),
        };
        assert_eq!(parse_net("unix:/a:/b"), Ok(unix));
        for wrong in [
            "", "user:1", "tap", "tap:", "unix:/a", "unix::/b", "unix:/a:", "bridge",
        ] {
            assert!(parse_net(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(parse_address("0xfeffb000"), Ok(0xfeff_b000));
        assert_eq!(parse_address("4096"), Ok(4096));
        assert!(parse_address("0x").is_err() && parse_address("here").is_err());
    }
}
