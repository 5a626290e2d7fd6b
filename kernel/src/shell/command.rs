//! The commands of the prompt.

use core::fmt::{self, Display, Formatter, Write};

use gnomon_clock::page::{self, flag};
use gnomon_clock::{
    Announcement, ClockStatus, CounterId, Evidence, Fields, LeapIndicator, Notes, OperatorNote,
    Origin, Reading, SmearingHint, Span, Tai, TaiOffset, TimeType, Timestamp, Utc, Violation,
};

use crate::config::{Idle, Smearing};
use crate::duty::OnViolation;
use crate::report::{self, Address, Mac, Page, SmearLine, SmearView, TimeLine, View, Width, ipv6};
use crate::serve::times::Told;
use crate::services::counters::PageRate;
use crate::source::{Entry, State};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// List the commands.
    Help,
    /// The time in one line.
    Time,
    /// The time, what it rests on, and what has been served.
    Status,
    /// Where time may come from, and where it does.
    Sources,
    /// Every field of the vmclock page.
    Page,
    /// Whether the host has kept its promises.
    Audit,
    /// The network device, addresses, frames.
    Net,
    /// What firmware and hypervisor offer.
    Services,
    /// Restart the machine.
    Reboot,
    /// Switch the machine off.
    PowerOff,
}

impl Command {
    /// Reads a line: `None` for a blank one.
    ///
    /// # Errors
    /// [`Unknown`] when the first word is no command or more words follow it.
    pub fn parse(line: &str) -> Result<Option<Self>, Unknown<'_>> {
        let mut words = line.split_ascii_whitespace();
        let Some(word) = words.next() else {
            return Ok(None);
        };
        let (_, command, _) = COMMANDS
            .iter()
            .find(|(name, ..)| *name == word)
            .ok_or(Unknown::Command(word))?;
        match words.next() {
            None => Ok(Some(*command)),
            Some(_) => Err(Unknown::Argument(word)),
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
    /// The command takes no arguments.
    Argument(
        /// The command.
        &'a str,
    ),
}

impl Display for Unknown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(word) => write!(f, "`{word}` is not a command, try `help`"),
            Self::Argument(command) => write!(f, "`{command}` takes no arguments"),
        }
    }
}

/// Prints what `command` has to tell of `view`. For [`Command::Reboot`] and [`Command::PowerOff`]
/// that is an announcement; the deed is the caller's.
///
/// # Errors
/// What `out` returns.
pub fn run(command: Command, view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    match command {
        Command::Help => {
            for (name, _, what) in COMMANDS {
                writeln!(out, "{name:<10}{what}")?;
            }
            Ok(())
        }
        Command::Time => writeln!(out, "{}", TimeLine(&view.reading)),
        Command::Status => status(view, out),
        Command::Page => match view.fields {
            None => writeln!(out, "no vmclock page"),
            Some(Err(busy)) => writeln!(out, "{busy}"),
            Some(Ok(fields)) => fields_of_page(&fields, out),
        },
        Command::Sources => sources(view, out),
        Command::Audit => audit(view, out),
        Command::Net => net(view, out),
        Command::Services => {
            view.services.list(out)?;
            writeln!(out, "random      {}", view.random)
        }
        Command::Reboot => writeln!(out, "rebooting"),
        Command::PowerOff => writeln!(out, "powering off"),
    }
}

const COMMANDS: [(&str, Command, &str); 10] = [
    ("help", Command::Help, "list the commands"),
    (
        "time",
        Command::Time,
        "the time, its bound, TAI-UTC, the host clock's status",
    ),
    (
        "status",
        Command::Status,
        "what the time rests on, and what has been served",
    ),
    (
        "sources",
        Command::Sources,
        "where the time may come from, and how each source is doing",
    ),
    ("page", Command::Page, "every field of the vmclock page"),
    (
        "audit",
        Command::Audit,
        "whether the host has kept its promises, with the evidence",
    ),
    ("net", Command::Net, "network device, addresses, frames"),
    (
        "services",
        Command::Services,
        "what firmware and hypervisor offer, and random numbers rest on",
    ),
    ("reboot", Command::Reboot, "restart the machine"),
    ("poweroff", Command::PowerOff, "switch the machine off"),
];

fn status(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let fields = view.fields.and_then(Result::ok);
    writeln!(out, "time        {}", TimeLine(&view.reading))?;
    writeln!(out, "page        {}", Page(view))?;
    if let Some(fields) = fields {
        writeln!(
            out,
            "host clock  {}",
            Coded::<ClockStatus>::new(fields.clock_status)
        )?;
        writeln!(out, "marker      {:#x}", fields.disruption_marker)?;
        match fields.vm_generation() {
            Some(generation) => writeln!(out, "generation  {generation:#x}")?,
            None => writeln!(out, "generation  not given")?,
        }
    }
    if let Ok(reading) = &view.reading {
        if let Some(updated) = reading.reference_utc {
            writeln!(out, "updated     {updated}")?;
        }
        remarks(reading, out)?;
        operator_offset(reading, out)?;
    }
    if let Some(fields) = fields {
        warnings(&fields, out)?;
    }
    serving(view, out)?;
    write!(out, "audit       ")?;
    audit_summary(view, out)?;
    if let Some(evidence) = latest(view) {
        writeln!(out, "latest      {evidence}")?;
    }
    counter(view, out)?;
    if let Some(service) = &view.smear {
        let hint = view.reading.map(|reading| reading.smearing_hint);
        if service.asked == Smearing::Hint && hint == Ok(None) {
            writeln!(out, "note        the page's smearing hint is not known")?;
        }
        smear(service, out)?;
    }
    match view.uptime {
        Some(nanos) => {
            let millis = nanos / 1_000_000;
            writeln!(out, "uptime      {}.{:03} s", millis / 1000, millis % 1000)?;
        }
        None => writeln!(out, "uptime      unknown")?,
    }
    let idle = match view.idle {
        Idle::Adaptive => "adaptive",
        Idle::Halt => "halt",
        Idle::Poll => "poll",
    };
    let rested = &view.rested;
    let asleep = rested.per_mille_asleep().unwrap_or(0);
    writeln!(
        out,
        "idle        {idle}, asleep {}.{} %, wake-ups {}, polls {}",
        asleep / 10,
        asleep % 10,
        rested.wake_ups,
        rested.polls
    )?;
    let server = &view.server;
    writeln!(
        out,
        "ntp         stratum {}, precision 2^{} s",
        server.stratum(),
        server.precision()
    )?;
    write!(out, "answered    ")?;
    counts(&view.ntp.answered(), out)?;
    write!(out, "of these    ")?;
    each(&view.ntp.particulars(), out)?;
    write!(out, "unanswered  ")?;
    counts(&view.ntp.silent(), out)
}

/// What has to be said about a reading beside its line.
fn remarks(reading: &Reading, out: &mut dyn Write) -> fmt::Result {
    let Notes {
        default_time_error,
        default_period_error,
        positive_tai_offset,
        invalid_tai_offset,
        utc_without_tai_offset,
    } = reading.notes;
    let utc = reading.utc.as_ref();
    let announced = |kind| utc.is_some_and(|utc| utc.announcement == kind);
    for (holds, remark) in [
        (
            announced(Announcement::Insert),
            "a second will be inserted at the end of this UTC day",
        ),
        (
            announced(Announcement::Delete),
            "a second will be left out at the end of this UTC day",
        ),
        (
            utc.is_some_and(|utc| utc.leap_second),
            "this is an inserted second",
        ),
        (
            utc.is_none(),
            "the page gives no usable TAI offset, so UTC is not known and not served",
        ),
        (
            reading.status == ClockStatus::Freerunning,
            "the host's clock is not synchronized at present, so the bound keeps growing",
        ),
        (
            default_time_error,
            "the page gives no maximum error of its time, 10 ms are assumed",
        ),
        (
            default_period_error,
            "the page gives no maximum error of the counter's period, 50 ppm are assumed",
        ),
        (
            positive_tai_offset,
            "tai_offset_sec has the sign of vmclock 1.0, its magnitude is taken as TAI-UTC",
        ),
        (
            invalid_tai_offset,
            "tai_offset_sec is flagged valid but is no TAI offset, it is ignored",
        ),
        (
            utc_without_tai_offset,
            "the page gives UTC without a TAI offset, so TAI is not known",
        ),
    ] {
        if holds {
            writeln!(out, "note        {remark}")?;
        }
    }
    Ok(())
}

/// What became of the operator's `tai_offset=`.
fn operator_offset(reading: &Reading, out: &mut dyn Write) -> fmt::Result {
    match reading.operator {
        OperatorNote::NotGiven => Ok(()),
        OperatorNote::Used => writeln!(
            out,
            "note        TAI-UTC is that of the command line, for the page gives none"
        ),
        OperatorNote::Agrees => writeln!(
            out,
            "note        TAI-UTC of the page agrees with that of the command line"
        ),
        OperatorNote::Disagrees { operator } => writeln!(
            out,
            "note        TAI-UTC is that of the page, not {operator} as on the command line: \
             one of them is wrong"
        ),
    }
}

/// What a client that asks now is told, and how long the host's clock has been freerunning.
fn serving(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    match view.refusal() {
        None => out.write_str("serving     time")?,
        Some(Told::Refusal(answer)) => {
            let kiss = answer.kiss();
            write!(out, "serving     no time, {}", kiss.escape_ascii())?;
        }
        Some(_) => out.write_str("serving     nothing")?,
    }
    match view.withheld {
        Some(why) => writeln!(out, ": {why}")?,
        None => writeln!(out)?,
    }
    let Some(freerunning) = view.duty.freerunning() else {
        return Ok(());
    };
    write!(out, "holdover    for {}", Seconds(freerunning))?;
    match view.duty.conditions().holdover_max {
        Some(limit) => writeln!(out, " of {limit} s allowed"),
        None => writeln!(out, ", without limit"),
    }
}

/// The page, then each source: whether it is in use, or why not.
fn sources(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let origin = view.reading.as_ref().ok().map(|reading| reading.origin);
    write!(out, "{:<12}", "vmclock")?;
    match (origin, view.fields, view.sources.choice().page) {
        (Some(Origin::Page), ..) => writeln!(out, "in use")?,
        (_, None, _) => writeln!(out, "{}", Page(view))?,
        (_, _, false) => writeln!(out, "not asked for by source=, its marker is watched")?,
        (Some(Origin::Own(_)), ..) => writeln!(out, "no time, its marker is watched")?,
        (None, ..) => match &view.reading {
            Err(why) => writeln!(out, "{why}")?,
            Ok(_) => writeln!(out, "no time")?,
        },
    }
    for entry in view.sources.entries() {
        source(&entry, origin, view, out)?;
    }
    writeln!(out, "alarms      {}", view.sources.alarms())
}

/// `virtio-rtc  in use, ± 61.2 µs, asked 0.312 s ago: PCI 00:05.0, clock 0 of 1, UTC`
fn source(
    entry: &Entry<'_>,
    origin: Option<Origin>,
    view: &View<'_>,
    out: &mut dyn Write,
) -> fmt::Result {
    write!(out, "{:<12}", entry.source.name())?;
    match entry.state {
        State::Absent(why) => return writeln!(out, "{why}"),
        State::Waiting => out.write_str("has not answered yet")?,
        State::Silent(why) => write!(out, "silent: {why}")?,
        State::Rejected(why) => write!(out, "not used: {why}")?,
        State::Learning => out.write_str("not enough answers for a line yet")?,
        State::Disagrees(difference) => write!(out, "contradicts: {difference}")?,
        State::Good if origin == Some(Origin::Own(entry.source)) => out.write_str("in use")?,
        State::Good => out.write_str("agrees, a better one is in use")?,
    }
    let now = view.reading.as_ref().ok();
    if let Some(reading) = now.and_then(|now| entry.line?.at(now.ticks).ok()) {
        let (bound, age) = (Width(reading.bound.nanos()), Seconds(reading.age));
        write!(out, ", ± {bound}, asked {age} ago")?;
    }
    match entry.about {
        "" => writeln!(out),
        about => writeln!(out, ": {about}"),
    }
}

/// The smeared service, and how far it is off UTC.
fn smear(view: &SmearView, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "smear       {}", SmearLine(view))?;
    let Some((_, smeared)) = &view.now else {
        return Ok(());
    };
    writeln!(
        out,
        "smeared     UTC {:+}, ± {} of smeared time, ± {} of UTC",
        Seconds(smeared.offset),
        Width(smeared.bound.nanos()),
        Width(smeared.utc_bound.nanos())
    )
}

/// `updates 12, disruptions 1, violations 0, on_violation=alarm`
fn audit_summary(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let on_violation = match view.duty.conditions().on_violation {
        OnViolation::Serve => "serve",
        OnViolation::Alarm => "alarm",
        OnViolation::Stop => "stop",
    };
    writeln!(
        out,
        "updates {}, disruptions {}, violations {}, on_violation={on_violation}",
        view.audit.updates(),
        view.audit.disruptions(),
        view.audit.violations()
    )
}

/// The counter's rate and its two views, and the time that the host has stolen.
fn counter(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    if let Some(rate) = view.services.rate() {
        write!(out, "counter     {rate}")?;
        match view.fields.and_then(Result::ok) {
            Some(page) if rate.contradicts(&page) => {
                writeln!(out, ", but {} by the page, which counts", PageRate(&page))?;
            }
            _ => writeln!(out)?,
        }
    }
    match (view.counter, view.watch.offset()) {
        (_, Some((offset, width))) => {
            let shifts = view.watch.shifts();
            writeln!(
                out,
                "physical    CNTPCT-CNTVCT {offset} ± {width} ticks, unannounced changes {shifts}"
            )?;
        }
        (CounterId::ArmVcnt, None) => writeln!(out, "physical    CNTPCT unavailable")?,
        _ => {}
    }
    if let Some(shift) = view.watch.latest() {
        writeln!(out, "moved       {shift}")?;
    }
    match view.services.stolen() {
        Some(stolen) => writeln!(out, "stolen      {stolen} ns of processor time"),
        None => Ok(()),
    }
}

/// What the latest violation rests on.
fn latest<'v>(view: &View<'v>) -> Option<&'v Evidence> {
    view.audit.evidence(view.duty.latest_violation()?)
}

fn audit(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    audit_summary(view, out)?;
    for violation in Violation::ALL {
        let count = view.audit.count(violation);
        writeln!(out, "{count:<12}{violation}")?;
    }
    if view.counter == CounterId::ArmVcnt {
        let shifts = view.watch.shifts();
        writeln!(out, "{shifts:<12}counter moved without a disruption")?;
    }
    for evidence in Violation::ALL
        .iter()
        .filter_map(|violation| view.audit.evidence(*violation))
    {
        writeln!(out, "{evidence}")?;
    }
    Ok(())
}

/// What the host says is about to happen.
fn warnings(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    if fields.has(flag::DISRUPTION_IMMINENT) {
        writeln!(
            out,
            "note        the host expects a disruption within the hour"
        )
    } else if fields.has(flag::DISRUPTION_SOON) {
        writeln!(
            out,
            "note        the host expects a disruption within the day"
        )
    } else {
        Ok(())
    }
}

/// `12: time 10, INIT 2`
fn counts(rows: &[(&str, u64)], out: &mut dyn Write) -> fmt::Result {
    let total = rows
        .iter()
        .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    write!(out, "{total}: ")?;
    each(rows, out)
}

/// `time 10, INIT 2`
fn each(rows: &[(&str, u64)], out: &mut dyn Write) -> fmt::Result {
    for (at, (name, count)) in rows.iter().enumerate() {
        write!(out, "{}{name} {count}", if at == 0 { "" } else { ", " })?;
    }
    writeln!(out)
}

fn net(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let net = match &view.net {
        Ok(net) => net,
        Err(why) => return writeln!(out, "no network: {why}"),
    };
    writeln!(out, "device      {}", net.nic)?;
    writeln!(out, "mac         {}", Mac(net.mac))?;
    writeln!(out, "address     {}", Address(net))?;
    match net.gateway {
        Some(gateway) => writeln!(out, "gateway     {gateway}")?,
        None => writeln!(out, "gateway     none")?,
    }
    ipv6(out, "ipv6        ", &net.ipv6)?;
    let frames = &net.frames;
    writeln!(
        out,
        "frames      received {} (ntp {}, stack {}), sent {}, dropped {}, kicks {}",
        frames.received, frames.ntp, frames.stack, frames.sent, frames.dropped, frames.kicks,
    )?;
    if frames.lies > 0 {
        writeln!(
            out,
            "            {} ring entries that no honest device writes",
            frames.lies
        )?;
    }
    Ok(())
}

/// Every field by its name in the ABI, raw, and what it means.
fn fields_of_page(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    header(fields, out)?;
    time(fields, out)
}

/// The fields up to the leap indicator: identity, state, flags, codes.
fn header(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    let magic = if fields.magic == page::MAGIC {
        "VCLK"
    } else {
        "not a vmclock page"
    };
    let type_ = Coded::<TimeType>::new(fields.time_type);
    let status = Coded::<ClockStatus>::new(fields.clock_status);
    let smearing = Coded::<SmearingHint>::new(fields.leap_second_smearing_hint);
    let leap = Coded::<LeapIndicator>::new(fields.leap_indicator);
    let rows: [(&str, Raw, Meaning<'_>); 12] = [
        ("magic", hex(fields.magic), Some(&magic)),
        ("size", dec(fields.size), Some(&"bytes of the region")),
        ("version", dec(fields.version), None),
        (
            "counter_id",
            dec(fields.counter_id),
            Some(&Counter(fields.counter_id)),
        ),
        ("time_type", dec(fields.time_type), Some(&type_)),
        ("seq_count", dec(fields.seq_count), None),
        ("disruption_marker", hex(fields.disruption_marker), None),
        ("flags", hex(fields.flags), Some(&Flags(fields.flags))),
        ("clock_status", dec(fields.clock_status), Some(&status)),
        (
            "leap_second_smearing_hint",
            dec(fields.leap_second_smearing_hint),
            Some(&smearing),
        ),
        (
            "tai_offset_sec",
            dec(fields.tai_offset_sec),
            Some(&Offset(fields)),
        ),
        ("leap_indicator", dec(fields.leap_indicator), Some(&leap)),
    ];
    rows.into_iter().try_for_each(|row| print(row, out))
}

/// The fields from the period on: numbers.
fn time(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    let (period, shift) = (fields.counter_period_frac_sec, fields.counter_period_shift);
    let period_esterror = fields.counter_period_esterror_rate_frac_sec;
    let period_maxerror = fields.counter_period_maxerror_rate_frac_sec;
    let generation = match fields.vm_generation() {
        Some(_) => None,
        None => Some(&NOT_GIVEN as &dyn Display),
    };
    let rows: [(&str, Raw, Meaning<'_>); 10] = [
        ("counter_period_shift", dec(shift), None),
        ("counter_value", hex(fields.counter_value), None),
        (
            "counter_period_frac_sec",
            hex(period),
            Some(&PeriodLine(period, shift)),
        ),
        (
            "counter_period_esterror_rate_frac_sec",
            hex(period_esterror),
            Some(&Rate(fields.period_esterror(), period)),
        ),
        (
            "counter_period_maxerror_rate_frac_sec",
            hex(period_maxerror),
            Some(&Rate(fields.period_maxerror(), period)),
        ),
        ("time_sec", dec(fields.time_sec), Some(&Time(fields))),
        ("time_frac_sec", hex(fields.time_frac_sec), None),
        (
            "time_esterror_nanosec",
            dec(fields.time_esterror_nanosec),
            Some(&Error(fields.time_esterror())),
        ),
        (
            "time_maxerror_nanosec",
            dec(fields.time_maxerror_nanosec),
            Some(&Error(fields.time_maxerror())),
        ),
        (
            "vm_generation_counter",
            hex(fields.vm_generation_counter),
            generation,
        ),
    ];
    rows.into_iter().try_for_each(|row| print(row, out))
}

/// A field as it stands on the page.
enum Raw {
    Hex(u64),
    Dec(i128),
}

/// What a field means, if its raw value does not say it all.
type Meaning<'a> = Option<&'a dyn Display>;

fn hex(value: impl Into<u64>) -> Raw {
    Raw::Hex(value.into())
}

fn dec(value: impl Into<i128>) -> Raw {
    Raw::Dec(value.into())
}

fn print((name, raw, meaning): (&str, Raw, Meaning<'_>), out: &mut dyn Write) -> fmt::Result {
    write!(out, "{name:<38}")?;
    match (raw, meaning) {
        (Raw::Hex(raw), Some(meaning)) => writeln!(out, "{raw:<#18x}  {meaning}"),
        (Raw::Dec(raw), Some(meaning)) => writeln!(out, "{raw:<18}  {meaning}"),
        (Raw::Hex(raw), None) => writeln!(out, "{raw:#x}"),
        (Raw::Dec(raw), None) => writeln!(out, "{raw}"),
    }
}

/// A field whose flag says that it does not count, or which lies beyond `size`.
const NOT_GIVEN: &str = "not given";

/// A code of the page by name, if it has one.
struct Coded<T>(Result<T, u8>);

impl<T: TryFrom<u8, Error = u8>> Coded<T> {
    fn new(code: u8) -> Self {
        Self(T::try_from(code))
    }
}

impl<T: Display> Display for Coded<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(known) => known.fmt(f),
            Err(code) => write!(f, "not a known code ({code})"),
        }
    }
}

/// The meaning of `counter_id`.
struct Counter(u8);

impl Display for Counter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == page::COUNTER_INVALID {
            return f.write_str("invalid: the page carries no time");
        }
        Coded::<CounterId>::new(self.0).fmt(f)
    }
}

/// The flags by name, and the unknown bits among them.
struct Flags(u64);

impl Display for Flags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut space = "";
        for (bit, name) in [
            (flag::TAI_OFFSET_VALID, "TAI_OFFSET_VALID"),
            (flag::DISRUPTION_SOON, "DISRUPTION_SOON"),
            (flag::DISRUPTION_IMMINENT, "DISRUPTION_IMMINENT"),
            (flag::PERIOD_ESTERROR_VALID, "PERIOD_ESTERROR_VALID"),
            (flag::PERIOD_MAXERROR_VALID, "PERIOD_MAXERROR_VALID"),
            (flag::TIME_ESTERROR_VALID, "TIME_ESTERROR_VALID"),
            (flag::TIME_MAXERROR_VALID, "TIME_MAXERROR_VALID"),
            (flag::TIME_MONOTONIC, "TIME_MONOTONIC"),
            (flag::VM_GEN_COUNTER_PRESENT, "VM_GEN_COUNTER_PRESENT"),
            (flag::NOTIFICATION_PRESENT, "NOTIFICATION_PRESENT"),
        ] {
            if rest & bit != 0 {
                write!(f, "{space}{name}")?;
                rest &= !bit;
                space = " ";
            }
        }
        if rest != 0 {
            write!(f, "{space}unknown {rest:#x}")?;
        }
        Ok(())
    }
}

/// A span of time in seconds, truncated to nanoseconds; `{:+}` shows the sign in any case.
struct Seconds(Span);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nanos = self.0.abs().as_nanos_floor().unsigned_abs();
        let sign = match self.0.units().signum() {
            -1 => "-",
            1 if f.sign_plus() => "+",
            _ => "",
        };
        write!(f, "{sign}{}.{:09} s", nanos / NANOS, nanos % NANOS)
    }
}

/// The meaning of `tai_offset_sec`.
struct Offset<'a>(&'a Fields);

impl Display for Offset<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.0.has(flag::TAI_OFFSET_VALID) {
            return f.write_str(NOT_GIVEN);
        }
        match TaiOffset::from_page(self.0.tai_offset_sec) {
            Some(TaiOffset {
                tai_minus_utc,
                positive_on_page: false,
            }) => {
                write!(f, "TAI-UTC {tai_minus_utc}")
            }
            Some(TaiOffset {
                tai_minus_utc,
                positive_on_page: true,
            }) => {
                write!(f, "TAI-UTC {tai_minus_utc}, with the sign of vmclock 1.0")
            }
            None => f.write_str("not a TAI offset"),
        }
    }
}

/// The length of a tick of `.0`·2^−(64+`.1`) s, truncated, and the rate.
struct PeriodLine(u64, u8);

impl Display for PeriodLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Below 2⁹⁴, so that its product with 10⁹ fits as well.
        let nanos = u128::from(self.0) * NANOS;
        let bits = 64 + u32::from(self.1);
        let whole = nanos.checked_shr(bits).unwrap_or(0);
        let rest = nanos - whole.checked_shl(bits).unwrap_or(0);
        let fraction = (rest * NANOS).checked_shr(bits).unwrap_or(0);
        write!(f, "{whole}.{fraction:09} ns per tick")?;
        match report::hertz(self.0, self.1) {
            Some((hertz, thousandths)) => write!(f, ", {hertz}.{thousandths:03} Hz"),
            None => Ok(()),
        }
    }
}

/// An error of the period relative to the period `.1`, rounded up.
struct Rate(Option<u64>, u64);

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.0 else {
            return f.write_str(NOT_GIVEN);
        };
        if self.1 == 0 {
            return f.write_str("of a period of zero");
        }
        let billionths = (u128::from(rate) * NANOS).div_ceil(u128::from(self.1));
        write!(f, "± {}.{:03} ppm", billionths / 1000, billionths % 1000)
    }
}

/// The reference instant.
struct Time<'a>(&'a Fields);

impl Display for Time<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Ok(seconds) = i64::try_from(self.0.time_sec) else {
            return f.write_str("out of range");
        };
        match TimeType::try_from(self.0.time_type) {
            Ok(TimeType::Utc) => Timestamp::<Utc>::from_parts(seconds, self.0.time_frac_sec).fmt(f),
            Ok(TimeType::Tai) => Timestamp::<Tai>::from_parts(seconds, self.0.time_frac_sec).fmt(f),
            _ => f.write_str("not a time of day"),
        }
    }
}

/// An error of the reference instant.
struct Error(Option<u64>);

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nanos) => write!(f, "± {}", Width(nanos)),
            None => f.write_str(NOT_GIVEN),
        }
    }
}

const NANOS: u128 = 1_000_000_000;
