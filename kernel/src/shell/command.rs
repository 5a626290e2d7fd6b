//! The commands of the prompt: their words, and what each is for.

use core::fmt::{self, Display, Formatter, Write};

use super::Desk;
use super::commands::{machine, net, page, status, time};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// List the commands.
    Help,
    /// What one of them is for.
    HelpOf(
        /// Its name.
        &'static str,
    ),
    /// The time in one line.
    Time(
        /// So many times, 1 to [`TIMES_MAX`].
        u16,
    ),
    /// The time, what it rests on, and what has been served.
    Status,
    /// Where time may come from, and where it does.
    Sources,
    /// Every field of the vmclock page.
    Page,
    /// Whether the host has kept its promises.
    Audit,
    /// TAI − UTC and leap seconds.
    Leap,
    /// The counter: its rate, what a read costs, whether it goes back.
    Counter,
    /// What the steps to a time cost.
    Bench,
    /// The network device, addresses, frames.
    Net,
    /// What firmware and hypervisor offer.
    Services,
    /// What firmware's description of the machine has, and what was made of it.
    Description,
    /// The devices on PCI.
    Pci,
    /// The memory map.
    Mem,
    /// The smoke test's checks, as far as they can be made beside a service.
    Smoke,
    /// Restart the machine.
    Reboot,
    /// Switch the machine off.
    PowerOff,
}

/// How often `time` may be asked for at once.
pub const TIMES_MAX: u16 = 1000;

impl Command {
    /// Reads a line: `None` for a blank one.
    ///
    /// # Errors
    /// [`Unknown`] when the first word is no command or what follows is not for it.
    pub fn parse(line: &str) -> Result<Option<Self>, Unknown<'_>> {
        let mut words = line.split_ascii_whitespace();
        let Some(word) = words.next() else {
            return Ok(None);
        };
        let row = row(word).ok_or(Unknown::Command(word))?;
        let command = match (row.command, words.next()) {
            (command, None) => command,
            (Self::Help, Some(name)) => {
                Self::HelpOf(self::row(name).ok_or(Unknown::Command(name))?.name)
            }
            (Self::Time(_), Some("-n")) => {
                let times = words.next().filter(|word| !word.starts_with('+'));
                let times = times.and_then(|word| word.parse().ok());
                let times = times.filter(|times| (1..=TIMES_MAX).contains(times));
                Self::Time(times.ok_or(Unknown::Argument(row.name))?)
            }
            _ => return Err(Unknown::Argument(row.name)),
        };
        match words.next() {
            None => Ok(Some(command)),
            Some(_) => Err(Unknown::Argument(row.name)),
        }
    }
}

/// A line that is no command. `Display` is one clear line (without the line end).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown<'a> {
    /// No such command.
    Command(
        /// The word in its place.
        &'a str,
    ),
    /// The command does not take these arguments.
    Argument(
        /// The command.
        &'static str,
    ),
}

impl Display for Unknown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(word) => write!(f, "`{word}` is not a command, try `help`"),
            Self::Argument(name) => match row(name) {
                Some(Row { usage, .. }) if !usage.is_empty() => {
                    write!(f, "`{name}` takes no arguments but `{usage}`")
                }
                _ => write!(f, "`{name}` takes no arguments"),
            },
        }
    }
}

/// Prints what `command` has to tell of `desk`; [`Command::Time`] once, however often it was asked for. For
/// [`Command::Reboot`] and [`Command::PowerOff`] that is an announcement; the deed is the caller's.
///
/// # Errors
/// What `out` returns.
pub fn run(command: Command, desk: &Desk<'_>, out: &mut dyn Write) -> fmt::Result {
    let view = &desk.view;
    match command {
        Command::Help => COMMANDS
            .iter()
            .try_for_each(|row| writeln!(out, "{:<10}{}", row.name, row.what)),
        Command::HelpOf(name) => match row(name) {
            None => Ok(()),
            Some(row) => help(row, out),
        },
        Command::Time(_) => time::time(view, out),
        Command::Leap => time::leap(view, out),
        Command::Status => status::status(view, out),
        Command::Page => match view.fields {
            None => writeln!(out, "no vmclock page"),
            Some(Err(busy)) => writeln!(out, "{busy}"),
            Some(Ok(fields)) => page::fields_of_page(&fields, out),
        },
        Command::Sources => status::sources(view, out),
        Command::Audit => status::audit(view, out),
        Command::Net => net::net(view, out),
        Command::Services => {
            view.services.list(out)?;
            writeln!(out, "random      {}", view.random)
        }
        Command::Counter => machine::counter(desk, out),
        Command::Bench => machine::bench(desk, out),
        Command::Description => machine::fact(&desk.facts.description, out),
        Command::Pci => machine::fact(&desk.facts.pci, out),
        Command::Mem => machine::fact(&desk.facts.memory, out),
        // The shell makes them one by one.
        Command::Smoke => Ok(()),
        Command::Reboot => writeln!(out, "rebooting"),
        Command::PowerOff => writeln!(out, "powering off"),
    }
}

fn help(row: &Row, out: &mut dyn Write) -> fmt::Result {
    out.write_str(row.name)?;
    if !row.usage.is_empty() {
        write!(out, " [{}]", row.usage)?;
    }
    writeln!(out, ": {}", row.what)?;
    if row.more.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", row.more)
}

/// A command, as people know it.
struct Row {
    name: &'static str,
    command: Command,
    /// The arguments it takes.
    usage: &'static str,
    /// What it is for, in a few words.
    what: &'static str,
    /// How to read what it prints.
    more: &'static str,
}

fn row(name: &str) -> Option<&'static Row> {
    let mut rows = COMMANDS.iter();
    // Whoever describes the machine, both names lead to it.
    let name = if name == "fdt" { "acpi" } else { name };
    rows.find(|row| row.name == name)
}

const fn plain(
    name: &'static str,
    command: Command,
    what: &'static str,
    more: &'static str,
) -> Row {
    let usage = "";
    Row {
        name,
        command,
        usage,
        what,
        more,
    }
}

static COMMANDS: [Row; 17] = [
    Row {
        usage: "COMMAND",
        ..plain(
            "help",
            Command::Help,
            "list the commands, or tell more of one",
            "",
        )
    },
    Row {
        usage: "-n TIMES",
        ..plain(
            "time",
            Command::Time(1),
            "the time, its bound, TAI-UTC, the host clock's status",
            "True time is within the bound behind the ±.",
        )
    },
    plain(
        "status",
        Command::Status,
        "what the time rests on, and what has been served",
        "`serving` is what an NTP client is told now, `answered` what clients were told.",
    ),
    plain(
        "sources",
        Command::Sources,
        "where the time may come from, and how each source is doing",
        "",
    ),
    plain(
        "page",
        Command::Page,
        "every field of the vmclock page",
        "Name, raw value, meaning; `not given` where a flag or the size says that it does not count.",
    ),
    plain(
        "audit",
        Command::Audit,
        "whether the host has kept its promises, with the evidence",
        "",
    ),
    plain(
        "leap",
        Command::Leap,
        "TAI-UTC, and the leap second that is known",
        "",
    ),
    plain(
        "counter",
        Command::Counter,
        "the counter's rate, what a read costs, whether it ever goes back",
        "By 1000 reads that are made for this.",
    ),
    plain(
        "bench",
        Command::Bench,
        "what the steps to a time cost",
        "Median and longest of 20 times each, in ns by the page's period.",
    ),
    plain("net", Command::Net, "network device, addresses, frames", ""),
    plain(
        "services",
        Command::Services,
        "what firmware and hypervisor offer, and random numbers rest on",
        "",
    ),
    plain(
        "acpi",
        Command::Description,
        "what describes the machine (`fdt` is the same), and what was found in it",
        "As it was at the start.",
    ),
    plain(
        "pci",
        Command::Pci,
        "the devices on PCI",
        "Place, vendor, device.",
    ),
    plain(
        "mem",
        Command::Mem,
        "the memory map, and where the image is",
        "",
    ),
    plain(
        "smoke",
        Command::Smoke,
        "the checks of the smoke test that disturb nobody",
        "TAP; those that need the machine for themselves say so.",
    ),
    plain("reboot", Command::Reboot, "restart the machine", ""),
    plain("poweroff", Command::PowerOff, "switch the machine off", ""),
];
