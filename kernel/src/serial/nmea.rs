//! NMEA 0183: the sentences `RMC` and `ZDA`, as pure functions of a time.
//!
//! The talker is `GP`, which every reader of time knows; `ZA` (atomic clock) would be nearer the truth, and many do
//! not take it. There is no position in `RMC`, for there is none to tell. Its status is `A` where there is a time
//! and `V` where there is none; then there is no time in it either, and no `ZDA`.

use gnomon_clock::UtcTime;
use gnomon_clock::calendar::{DAY, Date};

/// Sentences of one second, each with its checksum and CR LF.
#[derive(Clone, Copy, Debug)]
pub struct Sentences {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl Sentences {
    /// `RMC` and `ZDA`, of at most 82 characters each by the standard.
    const MAX: usize = 2 * 82;

    /// What a second is told by: `$GPRMC,120531.00,A,,,,,,,201126,,,A*5F` and `$GPZDA,120531.00,20,11,2026,00,00*6C`.
    /// The inserted second is `235960.00`. `None` where the year does not have four digits.
    #[must_use]
    pub fn of(utc: &UtcTime) -> Option<Self> {
        let seconds = utc.time.seconds();
        let date = Date::from_days(seconds.div_euclid(DAY))?;
        let year = u16::try_from(date.year).ok().filter(|year| *year <= 9999)?;
        let of_day = u32::try_from(seconds.rem_euclid(DAY)).ok()?;
        let second = of_day % 60 + u32::from(utc.leap_second);
        let time = of_day / 3600 * 10_000 + of_day / 60 % 60 * 100 + second;
        let (day, month, year) = (date.day.into(), date.month.into(), year.into());
        let mut all = Self::EMPTY;
        all.sentence(&mut |out| {
            out.text(b"GPRMC,");
            out.digits(time, 6);
            out.text(b".00,A,,,,,,,");
            out.digits(day, 2);
            out.digits(month, 2);
            out.digits(year % 100, 2);
            out.text(b",,,A");
        });
        all.sentence(&mut |out| {
            out.text(b"GPZDA,");
            out.digits(time, 6);
            out.text(b".00,");
            out.digits(day, 2);
            out.text(b",");
            out.digits(month, 2);
            out.text(b",");
            out.digits(year, 4);
            out.text(b",00,00");
        });
        Some(all)
    }

    /// What is told while there is no time.
    #[must_use]
    pub fn without_time() -> Self {
        let mut all = Self::EMPTY;
        all.sentence(&mut |out| out.text(b"GPRMC,,V,,,,,,,,,,N"));
        all
    }

    /// The bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    const EMPTY: Self = Self {
        bytes: [0; Self::MAX],
        length: 0,
    };

    /// Adds one, around what `body` writes.
    fn sentence(&mut self, body: &mut dyn FnMut(&mut Self)) {
        self.text(b"$");
        let start = self.length;
        body(self);
        let sum = checksum(self.bytes.get(start..self.length).unwrap_or_default());
        let [high, low] = [sum >> 4, sum & 15].map(|digit| match digit {
            0..=9 => b'0' + digit,
            _ => b'A' + digit - 10,
        });
        self.text(&[b'*', high, low, b'\r', b'\n']);
    }

    fn text(&mut self, text: &[u8]) {
        let end = self.length + text.len();
        // What is written is as long as `of` makes it, and that fits.
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(text);
            self.length = end;
        }
    }

    /// The last `width` decimal digits of a number.
    fn digits(&mut self, number: u32, width: u32) {
        for place in (0..width).rev() {
            let digit = number / 10_u32.pow(place) % 10;
            self.text(&[b'0' + u8::try_from(digit).unwrap_or(0)]);
        }
    }
}

/// All characters between `$` and `*`, by exclusive or.
#[must_use]
pub fn checksum(characters: &[u8]) -> u8 {
    characters.iter().fold(0, |sum, character| sum ^ character)
}
