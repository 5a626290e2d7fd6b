//! A network of one's own: nothing in it reaches another program, and it may use any port.

use std::fs::File;
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Process;
use crate::{arch, on, temporary};

/// A network namespace, removed when this is dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// A namespace with a loopback interface.
    #[must_use]
    pub fn new() -> Self {
        assert!(
            geteuid().is_root(),
            "this test makes a network namespace, which takes root: run `sudo make test`"
        );
        let name = temporary::name();
        ip(&["netns", "add", &name]);
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    /// Makes a tap interface with this address (such as `10.7.7.1/24`), up.
    pub fn add_tap(&self, interface: &str, address: &str) {
        self.ip(&["tuntap", "add", "dev", interface, "mode", "tap"]);
        self.ip(&["addr", "add", address, "dev", interface]);
        self.ip(&["link", "set", interface, "up"]);
    }

    /// Makes a bridge with this address, and tap interfaces behind it, up.
    pub fn add_bridge(&self, bridge: &str, address: &str, taps: &[&str]) {
        self.ip(&["link", "add", bridge, "type", "bridge"]);
        self.ip(&["addr", "add", address, "dev", bridge]);
        self.ip(&["link", "set", bridge, "up"]);
        for tap in taps {
            self.ip(&["tuntap", "add", "dev", tap, "mode", "tap"]);
            self.ip(&["link", "set", tap, "master", bridge, "up"]);
        }
    }

    fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }

    /// Does something in the namespace. Sockets made there stay in it, and so do programs that
    /// are started there.
    pub fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let arch = arch();
        let body = || {
            let file =
                File::open(Path::new(temporary::NAMESPACES).join(&self.name)).expect("a namespace");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter it");
            on(arch, what)
        };
        let outcome = thread::scope(|scope| scope.spawn(body).join());
        outcome.unwrap_or_else(|failure| panic::resume_unwind(failure))
    }

    /// Runs a program in the namespace to its end, and returns whether it succeeded and what it said.
    #[must_use]
    pub fn run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        self.enter(|| {
            let (status, said) = Process::run(Command::new(program).args(arguments));
            (status.success(), said)
        })
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        temporary::remove_namespace(&self.name);
    }
}

fn ip(arguments: &[&str]) {
    let (status, said) = Process::run(Command::new("ip").args(arguments));
    assert!(status.success(), "ip {}: {said}", arguments.join(" "));
}
