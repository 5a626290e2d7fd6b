//! What a reading of the clock costs on the host, with its bound and its status, from a page that is
//! written meanwhile: beside the counter read that is in it, the host's own clock, and `ClockBound`.

use std::error::Error;
use std::fmt;
use std::fs;
use std::hint::black_box;
use std::ops::{Div, Sub};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use clock_bound_client::ClockBoundClient;
use clock_bound_shm::{ClockErrorBound, ClockStatus as Status, ShmWrite, ShmWriter};
use criterion::Criterion;
use gnomon_arch::machine::counter::{self, this_cpu};
use gnomon_clock::page::{self, flag};
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
    // Least that a reading can be which looks at the whole page behind the counter: as many words as the page
    // has, each loaded and compared with what it was.
    let seen: Box<Words> = black_box(Box::new(std::array::from_fn(|at| at as u64 * 77)));
    let words: Box<[AtomicU64; WORDS]> =
        black_box(Box::new(std::array::from_fn(|at| AtomicU64::new(seen[at]))));
    group.bench_function("compared", |b| {
        b.iter(|| {
            let ticks = counter.read();
            let mut same = words.iter().zip(seen.iter());
            let is_same = same.all(|(word, seen)| word.load(Ordering::Relaxed) == *seen);
            is_same.then_some(ticks)
        });
    });
    let mut clock = Clock::new(Some(page), counter);
    group.bench_function("now", |b| b.iter(|| reading(&mut clock)));
    group.bench_function("copy", |b| {
        b.iter(|| black_box(page).snapshot_with(|| counter.read()));
    });
    let fields = page.snapshot()?;
    group.bench_function("line", |b| {
        b.iter(|| Timeline::from_page(black_box(&fields), counter::Tsc::ID));
    });
    let line = Timeline::from_page(&fields, counter::Tsc::ID)?;
    group.bench_function("reading", |b| {
        b.iter(|| black_box(&line).at(Ticks(black_box(fields.counter_value + 4099))));
    });
    group.finish();
    Ok(())
}

/// Words of a page.
const WORDS: usize = page::LEN / 8;
type Words = [u64; WORDS];

/// What a caller wants of the time now, in memory: UTC, its bound, and the status.
fn reading(clock: &mut Clock<'_, counter::Tsc>) {
    if let Ok(now) = clock.now()
        && let Some(utc) = now.utc()
    {
        black_box((utc.time, now.bound(), now.status()));
    }
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
    assert_eq!(clock.now()?.status(), ClockStatus::Synchronized);

    let mut group = criterion.benchmark_group("whole");
    group.bench_function("counter", |b| b.iter(|| this_cpu().read()));
    group.bench_function("now", |b| b.iter(|| reading(&mut clock)));
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

/// Prints where the time goes, and ratios.
fn report(results: &Path) -> Outcome {
    let cost = |name: &str| Cost::of(&results.join(name).join("new"));
    let part = |name: &str| cost(&format!("parts/{name}"));
    let (counter, compared, now) = (part("counter")?, part("compared")?, part("now")?);
    println!(
        "\nWhere the time of Clock::now goes while the page stays the same, ns: median and least"
    );
    for (name, cost) in [
        ("counter between fences", counter),
        ("the page's 14 words compared behind it", compared - counter),
        ("UTC and bound by two products, status", now - compared),
    ] {
        println!("  {name:<40} {cost}");
    }
    println!("And once for each new page beside that");
    for (name, cost) in [
        ("copy by the seqlock", part("copy")? - counter),
        ("the line made of it", part("line")?),
        ("a reading of the line", part("reading")?),
    ] {
        println!("  {name:<40} {cost}");
    }
    let counter = cost("whole/counter")?;
    println!("\nWhole readings of one run, ns: median and least, and in counters");
    for (name, told) in [
        ("counter", "counter between fences"),
        ("now", "Clock::now: UTC, bound, status"),
        ("in place", "Clock::exchange_in_place, two stamps"),
        ("clock_gettime", "clock_gettime (vDSO)"),
        ("ClockBound", "ClockBound, now"),
    ] {
        let cost = cost(&format!("whole/{name}"))?;
        println!("  {told:<40} {cost}   {}", cost / counter);
    }
    let now = cost("whole/now")?;
    println!("\nClock::now, median and least");
    println!("  to the counter, bar 1.25: {}", now / counter);
    println!(
        "  to the floor, counter and words compared: {}",
        now / compared
    );
    println!(
        "  to ClockBound, bar 0.50:  {}",
        now / cost("whole/ClockBound")?
    );
    Ok(())
}

/// What one call costs, in ns, or how that compares. The least of the samples is what neighbours on the machine
/// have disturbed least.
#[derive(Clone, Copy)]
struct Cost {
    median: f64,
    least: f64,
}

impl Cost {
    /// By what criterion has written.
    fn of(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let read = |name: &str| -> Result<serde_json::Value, Box<dyn Error>> {
            Ok(serde_json::from_str(&fs::read_to_string(
                directory.join(name),
            )?)?)
        };
        let median = read("estimates.json")?["median"]["point_estimate"].as_f64();
        let sample = read("sample.json")?;
        let numbers = |name: &str| sample[name].as_array().cloned().unwrap_or_default();
        let each = numbers("times").into_iter().zip(numbers("iters"));
        let costs = each.filter_map(|(time, calls)| Some(time.as_f64()? / calls.as_f64()?));
        Ok(Self {
            median: median.ok_or("criterion has written no median")?,
            least: costs
                .reduce(f64::min)
                .ok_or("criterion has written no sample")?,
        })
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            median: self.median - other.median,
            least: self.least - other.least,
        }
    }
}

impl Div for Cost {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        Self {
            median: self.median / other.median,
            least: self.least / other.least,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7.2} {:>7.2}", self.median, self.least)
    }
}
