//! The head of a request (RFC 9112), byte by byte: nothing of it is kept but the target.

use super::path::Path;

/// Bytes of the longest target. Ours have at most 8.
const TARGET: usize = 256;
/// Bytes of the longest method. Ours have at most 4.
const METHOD: usize = 16;
/// Bytes of the longest head, and its lines at most.
const HEAD: u16 = 8192;
const LINES: u8 = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The target.
    pub path: Path,
    /// `HEAD`: the answer's body is left out.
    pub head_only: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: it is no request, or one of HTTP/1.1 without one `Host`.
    Malformed,
    /// 404: there is no such target.
    NotFound,
    /// 405: neither `GET` nor `HEAD`.
    Method,
    /// 414: the target is longer than 256 bytes.
    Target,
    /// 431: the head has more than 8192 bytes or 64 lines.
    Head,
    /// 505: not HTTP/1.0 or HTTP/1.1.
    Version,
}

/// Reads one head. Lines may end in LF alone, and an empty one may come first, as §2.2 allows.
#[derive(Clone, Debug)]
pub struct Parser {
    state: State,
    /// The last byte was a CR.
    after_cr: bool,
    bytes: u16,
    lines: u8,
    method: Word<METHOD>,
    target: Word<TARGET>,
    version: Word<8>,
    /// The name of this header line, as far as it is of interest.
    name: Word<4>,
    hosts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the request line.
    Start,
    Method,
    Target,
    Version,
    /// Before a header line.
    Line,
    Name,
    Value,
}

impl Parser {
    /// Nothing has been read.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Start,
            after_cr: false,
            bytes: 0,
            lines: 0,
            method: Word::EMPTY,
            target: Word::EMPTY,
            version: Word::EMPTY,
            name: Word::EMPTY,
            hosts: 0,
        }
    }

    /// Takes the next byte. `Some` ends it: either the head is complete, or it cannot become one
    /// that is answered otherwise. Nothing may be fed after that.
    pub fn feed(&mut self, byte: u8) -> Option<Result<Request, Refusal>> {
        self.step(byte).unwrap_or_else(|refusal| Some(Err(refusal)))
    }

    fn step(&mut self, byte: u8) -> Result<Option<Result<Request, Refusal>>, Refusal> {
        self.bytes += 1;
        if self.bytes > HEAD {
            return Err(Refusal::Head);
        }
        match (self.after_cr, byte) {
            (true, b'\n') => self.after_cr = false,
            (true, _) => return Err(Refusal::Malformed),
            (false, b'\r') => {
                self.after_cr = true;
                return Ok(None);
            }
            (false, _) => {}
        }
        if byte == b'\n' {
            return self.end_line();
        }
        self.state = match (self.state, byte) {
            (State::Start, _) | (State::Method, b'!'..) if is_token(byte) => {
                self.method.push(byte).ok_or(Refusal::Malformed)?;
                State::Method
            }
            (State::Method, b' ') => State::Target,
            (State::Target, b' ') => State::Version,
            (State::Target, b'!'..=b'~') => {
                self.target.push(byte).ok_or(Refusal::Target)?;
                State::Target
            }
            (State::Version, _) => {
                self.version.push(byte).ok_or(Refusal::Malformed)?;
                State::Version
            }
            (State::Line | State::Name, b'!'..) if is_token(byte) => {
                if self.state == State::Line {
                    self.name = Word::EMPTY;
                }
                self.name.push_or_spoil(byte.to_ascii_lowercase());
                State::Name
            }
            (State::Name, b':') => {
                if self.name.bytes() == b"host" {
                    self.hosts = self.hosts.saturating_add(1);
                }
                State::Value
            }
            (State::Value, b'\t' | b' '..=b'~' | 0x80..) => State::Value,
            _ => return Err(Refusal::Malformed),
        };
        Ok(None)
    }

    fn end_line(&mut self) -> Result<Option<Result<Request, Refusal>>, Refusal> {
        self.lines += 1;
        if self.lines > LINES {
            return Err(Refusal::Head);
        }
        self.state = match self.state {
            State::Start if self.lines == 1 => State::Start,
            State::Version => {
                match self.version.bytes() {
                    b"HTTP/1.0" | b"HTTP/1.1" => {}
                    [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                        return Err(Refusal::Version);
                    }
                    _ => return Err(Refusal::Malformed),
                }
                State::Line
            }
            State::Value => State::Line,
            State::Line => return Ok(Some(self.end())),
            _ => return Err(Refusal::Malformed),
        };
        Ok(None)
    }

    /// The head is complete.
    fn end(&self) -> Result<Request, Refusal> {
        let may_lack_host = self.version.bytes() == b"HTTP/1.0";
        if self.hosts > 1 || self.hosts == 0 && !may_lack_host {
            return Err(Refusal::Malformed);
        }
        let head_only = match self.method.bytes() {
            b"GET" => false,
            b"HEAD" => true,
            _ => return Err(Refusal::Method),
        };
        let path = Path::parse(self.target.bytes()).ok_or(Refusal::NotFound)?;
        Ok(Request { path, head_only })
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether this may be in a method or the name of a header (RFC 9110 §5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Up to `N` bytes.
#[derive(Clone, Debug)]
struct Word<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Word<N> {
    const EMPTY: Self = Self {
        bytes: [0; N],
        length: 0,
    };

    /// `None` when there is no room.
    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }

    /// What does not fit makes it a word that is unlike any other.
    fn push_or_spoil(&mut self, byte: u8) {
        if self.push(byte).is_none() {
            self.bytes = [0; N];
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}
