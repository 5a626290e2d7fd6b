//! The command line: any text gives settings and warnings, and no warning shows a key.

use gnomon_kernel::config::Config;

/// Input: the line.
///
/// # Panics
/// A setting is out of its range, or a warning says too much.
pub fn run(data: &[u8]) {
    let Ok(line) = core::str::from_utf8(data) else {
        return;
    };
    let words = line.split_ascii_whitespace().count();
    let mut warnings = 0;
    let config = Config::parse(line, &mut |warning| {
        warnings += 1;
        let text = warning.to_string();
        assert!(text.chars().all(|c| !c.is_control()), "{text}");
        if let Some((_, key)) = warning.word.split_once("ntp.key=") {
            let secret = key.rsplit(':').next().unwrap_or("");
            let is_key = secret.len() >= 16 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(!is_key || !text.contains(secret), "{text}");
        }
    });
    assert!(warnings <= words + 1);
    assert!((1..=15).contains(&config.stratum));
    assert!(!matches!(config.smear_port, Some(0 | 67 | 68 | 123)));
    assert!(
        config
            .smoke
            .is_none_or(|seconds| (1..=3600).contains(&seconds))
    );
    assert!(config.vmclock.is_none_or(|address| address % 4096 == 0));
    // The same words say the same; and Debug shows no key either.
    assert_eq!(Config::parse(line, &mut |_| {}), config);
    let shown = format!("{:?}", config.policy.keys);
    for word in line.split_ascii_whitespace() {
        let secret = word.rsplit(':').next().unwrap_or("");
        assert!(secret.len() < 32 || !shown.contains(secret), "{shown}");
    }
}
