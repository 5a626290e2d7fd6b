//! A page that the host rewrites, under the fuzzer's hand.

use gnomon_clock::page::flag;
use gnomon_clock::{Fields, Period, VmclockPage, Writer};

use crate::input::Input;

/// 2026-11-20T12:00:00 as TAI seconds since 1970.
pub const NOON: u64 = 1_795_176_037;

/// A good page in TAI for a counter of 1 GHz, that tells everything.
///
/// # Panics
/// Never.
#[must_use]
pub fn good(marker: u64) -> Fields {
    let period = Period::from_hertz(1_000_000_000).expect("a counter");
    Fields {
        disruption_marker: marker,
        counter_id: 1,
        time_type: 1,
        clock_status: 2,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        counter_period_maxerror_rate_frac_sec: period.frac() / 20_000,
        time_sec: NOON,
        // Each marker has a line of its own: a page that is left over by a disruption is not believed.
        time_frac_sec: marker << 50,
        time_maxerror_nanosec: 1000,
        ..Fields::stock()
    }
}

/// The page: there is one for the whole run, which each input fills anew.
///
/// # Panics
/// Never.
#[must_use]
pub fn page(fields: &Fields) -> &'static VmclockPage {
    static PAGE: VmclockPage = VmclockPage::new(&Fields::stock());
    let bytes = fields.to_bytes();
    store(&PAGE, 0, &bytes);
    &PAGE
}

/// Writes fields as they are, without a word to the reader.
pub fn store(page: &VmclockPage, offset: usize, bytes: &[u8]) {
    use gnomon_clock::PageMemory;
    // What is not made of whole fields ends where it stops being that, and some of it has been written.
    let mut memory = page;
    let _ = memory.write(offset, bytes);
}

/// A write of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    offset: u8,
    bytes: [u8; 8],
    length: u8,
}

impl Change {
    /// Which field, and what it is to be.
    pub fn read(input: &mut Input<'_>) -> Self {
        /// Where the fields of the page begin, and how long they are.
        const FIELDS: [(u8, u8); 22] = [
            (0x00, 4),
            (0x04, 4),
            (0x08, 2),
            (0x0a, 1),
            (0x0b, 1),
            (0x0c, 4),
            (0x10, 8),
            (0x18, 8),
            (0x22, 1),
            (0x23, 1),
            (0x24, 2),
            (0x26, 1),
            (0x27, 1),
            (0x28, 8),
            (0x30, 8),
            (0x38, 8),
            (0x40, 8),
            (0x48, 8),
            (0x50, 8),
            (0x58, 8),
            (0x60, 8),
            (0x68, 8),
        ];
        let (offset, length) = FIELDS[usize::from(input.u8()) % FIELDS.len()];
        Self {
            offset,
            bytes: input.number().to_le_bytes(),
            length,
        }
    }

    /// Writes it and says nothing.
    pub fn store(self, page: &VmclockPage) {
        let bytes = &self.bytes[..usize::from(self.length)];
        store(page, usize::from(self.offset), bytes);
    }
}

/// Updates the page as an honest publisher does, whatever it publishes.
///
/// # Panics
/// Never: a whole page is made of whole fields.
pub fn publish(page: &VmclockPage, fields: &Fields) {
    Writer::new(page, page.seq_count() & !1)
        .publish(fields)
        .expect("whole fields");
}

/// What the page holds now, looked at by nobody but us.
#[must_use]
pub fn raw(page: &VmclockPage) -> Fields {
    // Fields are compared by what they are: the count may be odd.
    let (marker, seq) = (page.marker(), page.seq_count());
    page.snapshot().unwrap_or(Fields {
        disruption_marker: marker,
        seq_count: seq,
        ..Fields::stock()
    })
}
