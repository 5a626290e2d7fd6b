//! What is answered: status line, headers, and everything that is not the page.

use core::fmt::{self, Display, Write};

use super::history::History;
use super::page;
use super::path::Path;
use super::request::{Refusal, Request};
use crate::json;
use crate::report::View;
use crate::text::Text;

/// Bytes of the longest head, and of the longest body, the page excepted.
pub const HEAD: usize = 512;
/// See [`HEAD`].
pub const BODY: usize = 4352;

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    const OK: Self = Self(200);
    const NO_TIME: Self = Self(503);

    const fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            414 => "URI Too Long",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "Internal Server Error",
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self(match refusal {
            Refusal::Malformed => 400,
            Refusal::NotFound => 404,
            Refusal::Method => 405,
            Refusal::Target => 414,
            Refusal::Head => 431,
            Refusal::Version => 505,
        })
    }
}

/// An answer. The page is longer than this and stands elsewhere; then only the head is here.
#[derive(Debug)]
pub struct Answer {
    head: Text<HEAD>,
    body: Text<BODY>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            head: Text::EMPTY,
            body: Text::EMPTY,
        }
    }
}

impl Answer {
    /// Fills in what `request` gets.
    pub fn fill(&mut self, request: Result<Request, Refusal>, view: &View<'_>, history: &History) {
        let path = request.map(|request| request.path);
        let status = match path {
            Err(refusal) => Status::from(refusal),
            Ok(Path::Health) if view.refusal().is_some() => Status::NO_TIME,
            Ok(_) => Status::OK,
        };
        let told = self.tell(path, status, view, history);
        // Nothing is cut: half an object is worse than none.
        let status = if told.is_err() { Status(500) } else { status };
        if told.is_err() {
            self.body = Text::EMPTY;
        }
        let length = match path {
            Ok(Path::Page) => page::LENGTH,
            _ => self.body.as_str().len(),
        };
        if request.is_ok_and(|request| request.head_only) {
            self.body = Text::EMPTY;
        }
        // There is room: the longest is tested.
        let _ = self.write_head(path.ok(), status, length);
    }

    /// The status line and the headers, with the empty line after them.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.head.as_str().as_bytes()
    }

    /// The body, empty for the page.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_str().as_bytes()
    }

    #[inline(never)]
    fn tell(
        &mut self,
        path: Result<Path, Refusal>,
        status: Status,
        view: &View<'_>,
        history: &History,
    ) -> fmt::Result {
        let out = &mut self.body;
        *out = Text::EMPTY;
        match path {
            Ok(Path::Page) => Ok(()),
            Ok(Path::Now) => {
                json::now(view, out)?;
                out.write_char('\n')
            }
            Ok(Path::Status) => super::status::status(view, history, out),
            Ok(Path::Metrics) => super::metrics::metrics(view, out),
            Ok(Path::Health) if status == Status::OK => writeln!(out, "time is served"),
            Ok(Path::Health) => writeln!(out, "no time is served: {}", Reason(view)),
            Err(_) => writeln!(out, "{} {}", status.0, status.reason()),
        }
    }

    #[inline(never)]
    fn write_head(&mut self, path: Option<Path>, status: Status, length: usize) -> fmt::Result {
        let out = &mut self.head;
        *out = Text::EMPTY;
        write!(out, "HTTP/1.1 {} {}\r\n", status.0, status.reason())?;
        let kind = match path {
            Some(Path::Page) => "text/html; charset=utf-8",
            Some(Path::Now | Path::Status) => "application/json",
            Some(Path::Metrics) => "text/plain; version=0.0.4; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        write!(out, "Content-Type: {kind}\r\nContent-Length: {length}\r\n")?;
        if status.0 == 405 {
            out.write_str("Allow: GET, HEAD\r\n")?;
        }
        if path == Some(Path::Page) {
            out.write_str(POLICY)?;
        }
        out.write_str(HEADERS)
    }
}

/// The page loads nothing from elsewhere, and nobody frames it.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'; \
    base-uri 'none'; form-action 'none'\r\n";

/// Nothing is kept, and each connection has one request.
const HEADERS: &str = "Cache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\n\
    Connection: close\r\n\r\n";

/// Why no time is served.
struct Reason<'a>(&'a View<'a>);

impl Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.reading, self.0.withheld) {
            (Err(why), _) => why.fmt(f),
            (Ok(_), Some(why)) => why.fmt(f),
            (Ok(reading), None) if reading.utc.is_none() => f.write_str("UTC is not known"),
            (Ok(_), None) => f.write_str("its bound has reached 16 s"),
        }
    }
}
