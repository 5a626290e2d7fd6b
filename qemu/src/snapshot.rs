//! A snapshot of a running machine, saved and loaded at once.

use core::time::Duration;
use std::fs::File;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use serde_json::{Value, json};

use crate::publish::PublishError;
use crate::qmp::{Qmp, QmpError};
use crate::temporary::Directory;
use crate::vm::Vm;

/// How long QEMU may take for a job.
const LONGEST: Duration = Duration::from_mins(1);
/// How often it is asked how far that is.
const LOOK: Duration = Duration::from_millis(5);
/// The file that snapshots are kept in, and the image in it, as QEMU names them; no device of the guest's has them.
const FILE: &str = "gnomon-snapshot-file";
const IMAGE: &str = "gnomon-snapshot";

impl Vm {
    /// Stops the machine, saves a snapshot of it, loads that, and lets it run: what it knows is from before a disruption,
    /// and the marker has to tell it so. Once for each machine.
    ///
    /// # Errors
    /// When QEMU cannot do so (the machine runs on then) or has ended.
    pub fn load_snapshot(&mut self) -> Result<(), PublishError> {
        let directory = Directory::new()?;
        let path = directory.0.join("snapshot");
        self.stop()?;
        let loaded = save_and_load(&mut self.qmp, &path);
        // The publisher does so by itself.
        if self.page_is_ours && self.publisher.is_none() && loaded.is_ok() {
            self.page()?.raise_marker()?;
        }
        self.cont()?;
        Ok(loaded?)
    }
}

fn save_and_load(qmp: &mut Qmp, path: &Path) -> Result<(), QmpError> {
    drop(File::create_new(path)?);
    let file = json!({ "driver": "file", "node-name": FILE, "filename": path });
    qmp.execute("blockdev-add", file)?;
    // Memory does not count as part of the image, which needs no size.
    let options = json!({ "driver": "qcow2", "file": FILE, "size": 65536 });
    job(qmp, "blockdev-create", json!({ "options": options }))?;
    let image = json!({ "driver": "qcow2", "node-name": IMAGE, "file": FILE });
    qmp.execute("blockdev-add", image)?;
    for command in ["snapshot-save", "snapshot-load"] {
        let what = json!({ "tag": "now", "vmstate": IMAGE, "devices": [IMAGE] });
        job(qmp, command, what)?;
    }
    Ok(())
}

/// Runs a command that is a job to its end.
fn job(qmp: &mut Qmp, command: &str, mut arguments: Value) -> Result<(), QmpError> {
    arguments["job-id"] = command.into();
    qmp.execute(command, arguments)?;
    let deadline = Instant::now() + LONGEST;
    loop {
        let jobs = qmp.execute("query-jobs", json!({}))?.value;
        let mut jobs = jobs.as_array().into_iter().flatten();
        let ours = jobs.find(|job| job["id"] == command && job["status"] == "concluded");
        match ours {
            Some(job) => {
                qmp.execute("job-dismiss", json!({ "id": command }))?;
                return match job["error"].as_str() {
                    None => Ok(()),
                    Some(why) => Err(QmpError::Command {
                        command: command.to_owned(),
                        reason: why.to_owned(),
                    }),
                };
            }
            None if Instant::now() >= deadline => return Err(QmpError::Timeout),
            None => sleep(LOOK),
        }
    }
}
