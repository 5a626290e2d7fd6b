//! Key files: any bytes give keys and warnings, and neither shows a key.

use gnomon_kernel::serve::auth::Keys;

/// Input: the file.
///
/// # Panics
/// A key that was taken does not work, or something shows too much.
pub fn run(data: &[u8]) {
    let mut keys = Keys::NONE;
    let mut warned = 0;
    let lines = data.split(|byte| *byte == b'\n').count();
    keys.parse_file(data, &mut |warning| {
        warned += 1;
        assert!((1..=lines).contains(&warning.line));
        assert!(warning.to_string().is_ascii());
    });
    assert!(warned <= lines);
    let shown = format!("{keys:?}");
    let text = String::from_utf8_lossy(data);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let id = words.next().unwrap_or("");
        if let Some(key) = id.parse().ok().and_then(|id: u32| keys.find(id)) {
            let tag = key.authenticator().tag(&[b"a ", b"message"]);
            assert!(key.authenticator().verifies(&[b"a message"], tag));
            let mut wrong = tag;
            wrong[0] ^= 1;
            assert!(!key.authenticator().verifies(&[b"a message"], wrong));
        }
        let secret = words.nth(1).unwrap_or("");
        assert!(secret.len() < 16 || !shown.contains(secret), "{shown}");
        let mut others = Keys::NONE;
        let _ = others.parse_word(line);
    }
}
