//! What there is to be asked for.

/// A target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/`: the page for people.
    Page,
    /// `/now`: the time, as JSON.
    Now,
    /// `/status`: what it rests on and what has been served, as JSON.
    Status,
    /// `/metrics`: numbers for Prometheus.
    Metrics,
    /// `/healthz`: whether time is served, as the status code.
    Health,
}

impl Path {
    /// Reads a target: the path alone (a query is ignored), or with the server's name before it
    /// (RFC 9112 §3.2).
    #[must_use]
    pub fn parse(target: &[u8]) -> Option<Self> {
        let path = match target.strip_prefix(b"http://") {
            Some(rest) => {
                let slash = rest.iter().position(|byte| *byte == b'/');
                slash.and_then(|slash| rest.get(slash..)).unwrap_or(b"/")
            }
            None => target,
        };
        let path = path.split(|byte| *byte == b'?').next()?;
        Some(match path {
            b"/" => Self::Page,
            b"/now" => Self::Now,
            b"/status" => Self::Status,
            b"/metrics" => Self::Metrics,
            b"/healthz" => Self::Health,
            _ => return None,
        })
    }
}
