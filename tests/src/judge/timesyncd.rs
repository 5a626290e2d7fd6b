//! systemd-timesyncd, in a file system of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Seat, Verdict, listen, unpacked};

/// `$1` is the server, `$2` the daemon, `$3` where its library is. It reads its configuration below /run and
/// keeps its state below /var/lib: both are its own.
const SCRIPT: &str = r#"
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
chmod 777 /var/lib
mkdir -p /run/systemd/timesyncd.conf.d
printf '[Time]\nNTP=%s\n' "$1" >/run/systemd/timesyncd.conf.d/gnomon.conf
export SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console LD_LIBRARY_PATH="$3"
exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$2"
"#;

/// Of its three lines that refuse a server's reply, the first is what it says to stamps of zero.
pub(super) fn timesyncd(seat: &Seat<'_>) -> Verdict {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "--propagation=private",
        "sh",
        "-euc",
        SCRIPT,
        "sh",
    ]);
    unshare.arg(seat.server.to_string());
    unshare.arg(unpacked("lib/systemd/systemd-timesyncd"));
    let timesyncd = seat.start(unshare.arg(libraries()));
    listen(
        &timesyncd,
        &["Contacted time server "],
        &[
            "Invalid reply, returned times before epoch.",
            "Server is not synchronized.",
            "Kiss-o'-death",
        ],
    )
}

/// Where libsystemd-shared is: below the name of the architecture.
fn libraries() -> PathBuf {
    let folder = unpacked("usr/lib");
    let mut inside = fs::read_dir(&folder).expect("libraries");
    let found = inside.find_map(|entry| {
        let path = entry.ok()?.path().join("systemd");
        path.is_dir().then_some(path)
    });
    found.unwrap_or_else(|| panic!("no libsystemd-shared in {}", folder.display()))
}
