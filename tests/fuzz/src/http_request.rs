//! A request of HTTP, byte by byte: it ends soon, and once.

use gnomon_kernel::http::{Parser, Refusal};

/// Input: the request.
///
/// # Panics
/// It does not end, or something is taken for a request that is none.
pub fn run(data: &[u8]) {
    /// Bytes of the longest head.
    const HEAD: usize = 8192;
    let mut parser = Parser::new();
    for (count, byte) in (1..).zip(data) {
        assert!(count <= HEAD + 1);
        let Some(end) = parser.feed(*byte) else {
            continue;
        };
        let head = &data[..count];
        if let Ok(request) = end {
            let method: &[u8] = if request.head_only { b"HEAD " } else { b"GET " };
            let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
            let text = &head[start.expect("a request line")..];
            assert!(text.starts_with(method) && head.ends_with(b"\n"));
            let hosts = text.to_ascii_lowercase();
            let hosts = hosts
                .windows(6)
                .filter(|window| window == b"\nhost:")
                .count();
            let line = text.split(|byte| *byte == b'\n').next().expect("a line");
            assert!(!line.trim_ascii_end().ends_with(b"HTTP/1.1") || hosts == 1);
        }
        if end == Err(Refusal::Head) {
            assert!(count > 64);
        }
        return;
    }
    assert!(data.len() <= HEAD);
}
