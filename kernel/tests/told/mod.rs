//! A view of a good page, for tests of what programs are told.

use core::net::Ipv4Addr;

use gnomon_clock::page::flag;
use gnomon_clock::{
    Audit, ClockStatus, CounterId, Fields, NoTime, Period, Reading, Ticks, TimeType, Timeline,
};
use gnomon_kernel::config::Idle;
use gnomon_kernel::duty::{Conditions, Duty};
use gnomon_kernel::net::inet6::Known6;
use gnomon_kernel::net::port::Health;
use gnomon_kernel::report::{NetView, View};
use gnomon_kernel::serve::ntp::{Counters, Server};
use gnomon_kernel::serve::responder;
use gnomon_kernel::service::Rested;
use gnomon_kernel::services::Nothing;
use gnomon_kernel::services::counters::Watch;
use gnomon_kernel::source::Table;
use gnomon_kernel::{net, random};

/// 2026-11-20T12:05:31Z in TAI.
pub(crate) const NOON: u64 = 1_795_176_331 + 37;
/// The counter then, more than 53 bits.
pub(crate) const C1: u64 = 0x1234_5678_9abc_def1;

/// The time at C1 is half a second past `NOON`, ± 41.2 µs.
pub(crate) fn good_page() -> Fields {
    let period = Period::from_hertz(2_400_000_000).expect("a counter");
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: TimeType::Tai as u8,
        disruption_marker: u64::MAX - 1,
        clock_status: ClockStatus::Synchronized as u8,
        flags: flag::TAI_OFFSET_VALID
            | flag::PERIOD_MAXERROR_VALID
            | flag::TIME_MAXERROR_VALID
            | flag::VM_GEN_COUNTER_PRESENT,
        tai_offset_sec: -37,
        counter_value: C1,
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        counter_period_maxerror_rate_frac_sec: period.frac() / 20_000,
        time_sec: NOON,
        time_frac_sec: 1 << 63,
        time_maxerror_nanosec: 41_200,
        vm_generation_counter: 7,
        ..Fields::stock()
    }
}

/// The time at C1.
pub(crate) fn read(fields: &Fields) -> Result<Reading, NoTime> {
    Timeline::from_page(fields, CounterId::X86Tsc)
        .and_then(|timeline| timeline.at(Ticks(C1)))
        .map_err(|why| NoTime::Unusable {
            why,
            stepped: false,
        })
}

static NO_AUDIT: Audit = Audit::new();
static NO_WATCH: Watch = Watch::new();
static NO_DUTY: Duty = Duty::new(Conditions::DEFAULT);
static NO_SOURCES: Table = Table::new();
static NO_CLIENTS: responder::Memory = responder::Memory::new();

/// The view at C1.
pub(crate) fn view(fields: &Fields) -> View<'static> {
    View {
        machine: "x86_64, PVH, 16 MiB",
        uptime: Some(12_345_678_901),
        reading: read(fields),
        page: Ok("\\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes"),
        fields: Some(Ok(*fields)),
        counter: CounterId::X86Tsc,
        net: Ok(NetView {
            nic: "virtio-net, PCI 00:02.0",
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x0a],
            address: Some((Ipv4Addr::new(10, 0, 2, 15), 24)),
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dhcp: true,
            ipv6: Known6::default(),
            frames: net::Counters::default(),
            health: Health::default(),
            is_mute: false,
        }),
        server: Server::new(1, 30),
        ntp: Counters {
            time: 5,
            step: 1,
            mode: 2,
            ..Counters::default()
        },
        clients: &NO_CLIENTS,
        connections: 0,
        withheld: None,
        duty: &NO_DUTY,
        audit: &NO_AUDIT,
        smear: None,
        idle: Idle::Halt,
        rested: Rested::default(),
        sources: &NO_SOURCES,
        services: &Nothing,
        watch: &NO_WATCH,
        random: random::Sources::default(),
    }
}
