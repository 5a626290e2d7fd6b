//! What a reading of the clock costs on the host, with its bound and its status, from a page that is
//! written meanwhile: beside the counter read that is in it, the host's own clock, and `ClockBound`.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use clock_bound_client::ClockBoundClient;
use clock_bound_shm::{ClockErrorBound, ClockStatus as Status, ShmWrite, ShmWriter};
use criterion::Criterion;
use gnomon_arch::machine::counter::{self, this_cpu};
use gnomon_clock::page::flag;
use gnomon_clock::{Clock, ClockStatus, Counter, Fields, Period, Ticks, TimeType, Timeline};
use gnomon_clock::{VmclockPage, Writer};
use nix::sys::time::TimeSpec;

/// How often the page is written: the publisher's own interval.
const INTERVAL: Duration = Duration::from_millis(50);
/// 2.6 GHz or so: what a tick is called does not change what it costs.
const HERTZ: u64 = 2_600_000_000;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clock");
    let results = directory.join("results");
    fs::create_dir_all(&results)?;
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(&results)
        .configure_from_args();
    let page: &'static VmclockPage = Box::leak(Box::new(VmclockPage::new(&fields())));
    let running = Arc::new(AtomicBool::new(true));
    let writer = thread::spawn({
        let running = Arc::clone(&running);
        move || {
            let mut writer = Writer::new(page, page.seq_count());
            while running.load(Ordering::Relaxed) {
                // Memory takes everything.
                let _ = writer.publish(&fields());
                thread::sleep(INTERVAL);
            }
        }
    });
    parts(&mut criterion, page)?;
    peers(&mut criterion, page, &directory)?;
    running.store(false, Ordering::Relaxed);
    writer.join().map_err(|_| "the writer failed")?;
    report(&results)
}

/// A page of this moment.
fn fields() -> Fields {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let period = Period::from_hertz(HERTZ).expect("above 2 Hz");
    Fields {
        counter_id: counter::Tsc::ID as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        disruption_marker: 1,
        flags: flag::TAI_OFFSET_VALID | flag::PERIOD_MAXERROR_VALID | flag::TIME_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_value: this_cpu().read().0,
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        counter_period_maxerror_rate_frac_sec: period.frac() / 1_000_000,
        time_sec: now.map_or(0, |now| now.as_secs() + 37),
        time_maxerror_nanosec: 1000,
        ..Fields::stock()
    }
}

/// Where the time goes.
fn parts(criterion: &mut Criterion, page: &'static VmclockPage) -> Outcome {
    let mut group = criterion.benchmark_group("parts");
    let counter = this_cpu();
    group.bench_function("counter", |b| b.iter(|| counter.read()));
    group.bench_function("copy", |b| {
        b.iter(|| black_box(page).snapshot_with(|| counter.read()));
    });
    let fields = page.snapshot()?;
    let line = Timeline::from_page(&fields, counter::Tsc::ID)?;
    let (start, period) = (fields.counter_value, line.period());
    let mut ticks = 0_u64;
    let mut next = move || {
        ticks = (ticks + 4099) & 0x7ff_ffff;
        ticks
    };
    group.bench_function("none", |b| b.iter(|| black_box(next())));
    group.bench_function("scale", |b| {
        b.iter(|| black_box(period).span(black_box(next().cast_signed())));
    });
    let rate = fields.counter_period_maxerror_rate_frac_sec;
    group.bench_function("bound", |b| {
        b.iter(|| black_box(period).rate_outward(black_box(next()), black_box(rate)));
    });
    group.bench_function("reading", |b| {
        b.iter(|| black_box(&line).at(Ticks(start + black_box(next()))));
    });
    group.finish();
    Ok(())
}

/// Whole readings, one beside the other.
fn peers(criterion: &mut Criterion, page: &'static VmclockPage, directory: &Path) -> Outcome {
    let segment = directory.join("clockbound");
    write_segment(&segment)?;
    let segment = segment.to_str().ok_or("a path in UTF-8")?;
    let mut bound = ClockBoundClient::new_with_paths(segment, segment)
        .map_err(|error| format!("ClockBound: {error:?}"))?;
    let first = bound
        .now()
        .map_err(|error| format!("ClockBound: {error:?}"))?;
    assert_eq!(first.clock_status, Status::Synchronized);
    let mut clock = Clock::new(Some(page), this_cpu());
    assert_eq!(clock.now()?.status, ClockStatus::Synchronized);

    let mut group = criterion.benchmark_group("whole");
    group.bench_function("counter", |b| b.iter(|| this_cpu().read()));
    group.bench_function("now", |b| b.iter(|| clock.now()));
    group.bench_function("in place", |b| {
        b.iter(|| {
            let stamp = clock.stamp();
            clock.exchange_in_place(stamp).is_ok()
        });
    });
    group.bench_function("clock_gettime", |b| b.iter(SystemTime::now));
    group.bench_function("ClockBound", |b| b.iter(|| bound.now()));
    group.finish();
    Ok(())
}

/// `ClockBound`'s memory as its daemon leaves it, good for a day.
fn write_segment(path: &Path) -> Outcome {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
    let day = TimeSpec::new(now.tv_sec() + 86_400, 0);
    let segment = ClockErrorBound::new(now, day, 1000, 1, 50_000, Status::Synchronized, false);
    ShmWriter::new(path)?.write(&segment);
    Ok(())
}

/// Prints ratios.
fn report(results: &Path) -> Outcome {
    let median = |name: &str| -> Result<f64, Box<dyn Error>> {
        let file = results.join(name).join("new/estimates.json");
        let text = fs::read_to_string(file)?;
        let estimates: serde_json::Value = serde_json::from_str(&text)?;
        let median = estimates["median"]["point_estimate"].as_f64();
        Ok(median.ok_or("criterion has written no median")?)
    };
    let part = |name: &str| median(&format!("parts/{name}"));
    let (counter, none, reading) = (part("counter")?, part("none")?, part("reading")?);
    let (scale, bound) = (part("scale")? - none, part("bound")? - none);
    println!(
        "\nWhere the time of a reading by a new copy of the page goes, medians of one run, ns:"
    );
    for (name, time) in [
        ("counter between fences", counter),
        ("seqlock and copy", part("copy")? - counter),
        ("scaling", scale),
        ("bound", bound),
        ("UTC, status and the rest", reading - none - scale - bound),
    ] {
        println!("  {name:<26} {time:>7.1}");
    }
    let counter = median("whole/counter")?;
    println!("\nWhole readings, medians of one run:");
    for (name, told) in [
        ("counter", "counter between fences"),
        ("now", "Clock::now"),
        ("in place", "Clock::exchange_in_place, two stamps"),
        ("clock_gettime", "clock_gettime (vDSO)"),
        ("ClockBound", "ClockBound, now"),
    ] {
        let time = median(&format!("whole/{name}"))?;
        println!(
            "  {told:<38} {time:>7.1} ns   {:>5.2} counters",
            time / counter
        );
    }
    let now = median("whole/now")?;
    println!(
        "\nClock::now to the counter {:.2} (bar: 1.25), to ClockBound {:.2} (bar: 0.50)",
        now / counter,
        now / median("whole/ClockBound")?
    );
    Ok(())
}
