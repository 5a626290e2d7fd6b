//! The 48 bytes of a request and of a reply, and which replies tell the time.

use gnomon_clock::{Bound, LeapIndicator, Span, Timestamp, Utc};

/// Length of an NTP header, in bytes: of our requests, and of the only replies that are taken. Nothing is
/// asked for that would follow it.
pub const HEADER: usize = 48;

/// The first second that a reply can tell, 2026-01-01T00:00:00Z.
///
/// An NTP timestamp repeats every 2³² s (RFC 5905 §6; first on 2036-02-07). Of the instants that one can
/// mean the first that is not before this image was written is taken, so that it serves until 2162-02-06.
pub const FLOOR: i64 = 1_767_225_600;

/// The greatest root distance that is taken, as ntpsec has it (`maxdist`): 1.5 s.
pub const MAX_DISTANCE: Bound = Bound::from_nanos(1_500_000_000);

/// The longest that a server may take for its reply, as chrony has it: 4 s, in 2⁻³² s.
pub(super) const MAX_TURNAROUND: u64 = 4 << 32;

/// A request in client mode. Its fields are cookies: the server hears nothing of what time it is here
/// (draft-ietf-ntp-data-minimization).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The server's receive stamp of an earlier request, to ask when its reply left (RFC 9769 §2); or 0.
    pub(super) origin: u64,
    /// What the reply has for its origin if it is interleaved; or 0.
    pub(super) receive: u64,
    /// What it has otherwise.
    pub(super) transmit: u64,
    /// Log2 of the seconds between requests.
    pub(super) poll: u8,
}

impl Request {
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION << 3 | CLIENT;
        bytes[2] = self.poll;
        bytes[3] = PRECISION.cast_unsigned();
        bytes[24..32].copy_from_slice(&self.origin.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.receive.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.transmit.to_be_bytes());
        bytes
    }
}

/// A datagram that has the form of a reply. Whose, and to what, has not been looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'p>(&'p [u8; HEADER]);

impl<'p> Reply<'p> {
    /// `None` for anything but 48 bytes in mode 4 of version 3 or 4.
    pub(super) fn parse(payload: &'p [u8]) -> Option<Self> {
        let header: &[u8; HEADER] = payload.try_into().ok()?;
        let (version, mode) = (header[0] >> 3 & 7, header[0] & 7);
        (mode == SERVER && (3..=VERSION).contains(&version)).then_some(Self(header))
    }

    /// The cookie that is returned.
    pub(super) fn origin(self) -> u64 {
        self.stamp(24)
    }

    /// What it says of the time, if it does. `is_ours` is asked whether a reference id is an address of
    /// this machine's.
    pub(super) fn judge(self, is_ours: impl FnOnce([u8; 4]) -> bool) -> Verdict {
        let header = self.0;
        let stratum = header[1];
        let reference_id = self.word(12);
        if stratum == 0 {
            return Verdict::Kiss(Kiss::from_code(reference_id), header[2]);
        }
        let Some(leap) = LeapIndicator::from_ntp(header[0] >> 6) else {
            return Verdict::Refused("the server is not synchronized");
        };
        // Ours is one more, and 16 is no stratum.
        if stratum > MAX_STRATUM {
            return Verdict::Refused("the server's stratum is above 14");
        }
        if stratum > 1 && is_ours(reference_id) {
            return Verdict::Refused("the server follows this machine");
        }
        let Some(error) = self.error() else {
            return Verdict::Refused("the server's root distance is 1.5 s or more");
        };
        let (reference, receive, transmit) = (self.stamp(16), self.stamp(32), self.stamp(40));
        if receive == 0 || transmit == 0 {
            return Verdict::Refused("a stamp of the server's is zero");
        }
        // Zero is "unknown" (§6). The later stamp is transmit in basic mode, receive in interleaved mode.
        if reference != 0 && is_after(reference, receive) && is_after(reference, transmit) {
            return Verdict::Refused("the server's reference time is in the future");
        }
        Verdict::Time(Told {
            leap,
            stratum,
            reference_id,
            error,
            receive,
            transmit,
            may_be_smeared: SMEARED.contains(&reference_id),
        })
    }

    /// The greatest error of the server's stamps; `None` when it is too great.
    fn error(self) -> Option<Bound> {
        let [delay, dispersion] = [4, 8].map(|at| u128::from(u32::from_be_bytes(self.word(at))));
        // Both may have been rounded down to 2⁻¹⁶ s, so one more of each. Half of a delay is then whole in
        // 2⁻⁶⁴ s.
        let distance = ((delay + 1) << 47) + ((dispersion + 1) << 48);
        // The stamp lies in the interval of the precision, and of its last digit.
        let precision = self.0[3].cast_signed();
        let precision = match precision {
            -64..=0 => 1_u128 << (64 - u32::from(precision.unsigned_abs())),
            i8::MIN..-64 => 1,
            _ => return None,
        };
        let error = Bound::from_units(distance + precision + (1 << 32));
        (error < MAX_DISTANCE).then_some(error)
    }

    fn word(self, at: usize) -> [u8; 4] {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[at..at + 4]);
        word
    }

    fn stamp(self, at: usize) -> u64 {
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&self.0[at..at + 8]);
        u64::from_be_bytes(stamp)
    }
}

/// What comes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The time.
    Time(Told),
    /// No time, and a kiss code with the poll exponent beside it.
    Kiss(Kiss, u8),
    /// Nothing to be used, and why.
    Refused(&'static str),
}

/// What a good reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) leap: LeapIndicator,
    /// 1..=14.
    pub(super) stratum: u8,
    pub(super) reference_id: [u8; 4],
    /// Of either stamp: half the root delay, the root dispersion, and what was rounded.
    pub(super) error: Bound,
    /// When the request came. Not zero.
    pub(super) receive: u64,
    /// When the reply left, or in interleaved mode when the one before did. Not zero.
    pub(super) transmit: u64,
    pub(super) may_be_smeared: bool,
}

/// Why a server of stratum 0 has no time for us (RFC 5905 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kiss {
    /// `RATE`: not so often.
    Rate,
    /// `DENY` and `RSTR`: not at all.
    Deny,
    /// `INIT` and `STEP`: not yet.
    NotYet,
    /// Any other. It says nothing that has to be obeyed.
    Other,
}

impl Kiss {
    const fn from_code(code: [u8; 4]) -> Self {
        match &code {
            b"RATE" => Self::Rate,
            b"DENY" | b"RSTR" => Self::Deny,
            b"INIT" | b"STEP" => Self::NotYet,
            _ => Self::Other,
        }
    }
}

/// The instant of an NTP timestamp, by [`FLOOR`].
#[must_use]
pub fn utc(stamp: u64) -> Timestamp<Utc> {
    /// [`FLOOR`] as NTP counts, modulo the era.
    const FLOOR_STAMP: u64 = Timestamp::<Utc>::from_parts(FLOOR, 0).to_ntp().0;
    let since_floor = i128::from(stamp.wrapping_sub(FLOOR_STAMP));
    let floor = Timestamp::from_parts(FLOOR, 0);
    // Less than 2³² s later: no instant is out of range.
    floor
        .checked_add(Span::from_units(since_floor << 32))
        .unwrap_or(floor)
}

/// Whether one stamp is after another, less than half an era apart.
pub(super) const fn is_after(stamp: u64, other: u64) -> bool {
    stamp.wrapping_sub(other).cast_signed() > 0
}

const VERSION: u8 = 4;
const CLIENT: u8 = 3;
const SERVER: u8 = 4;
/// What a request says of our precision, 2⁻²⁰ s or anything: nobody looks at it.
const PRECISION: i8 = -20;
const MAX_STRATUM: u8 = 14;

/// Reference ids of services that are known to smear: our own, and Google's.
const SMEARED: [[u8; 4]; 3] = [*b"XSMR", *b"XSLS", *b"GOOG"];
