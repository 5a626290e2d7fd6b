//! The command line of a machine.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::{Accel, Arch, EXIT_PORT, Machine, Net, Ports, SerialTo, Transport};

impl Machine {
    /// The arguments with which QEMU writes the machine's device tree into `file` and ends.
    pub(super) fn dump_arguments(&self, file: &Path) -> Vec<OsString> {
        let mut line = self.hardware();
        let mut dump = OsString::from("dumpdtb=");
        dump.push(escaped(file));
        line.option("-machine", dump);
        // So that a second port among the extra arguments is the second here, too.
        line.option("-serial", "null");
        line.0.extend(self.extra.iter().cloned());
        line.0
    }

    /// All that the device tree depends on beside QEMU itself, if that can be told.
    pub(super) fn tree_arguments(&self) -> Option<Vec<OsString>> {
        // Arguments of others may name files, whose content counts, and KVM is the host's processor.
        let is_ours = self.extra.is_empty() && self.accel == Accel::Tcg;
        is_ours.then(|| self.hardware().0)
    }

    /// The arguments of the machine itself; its sockets are in `directory`.
    pub(super) fn arguments(
        &self,
        directory: &Path,
        tree: Option<&Path>,
        ports: Option<Ports>,
    ) -> Vec<OsString> {
        let mut line = self.hardware();
        match self.arch {
            Arch::X86_64 => {
                let exit = format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4");
                line.option("-device", exit);
                if self.vmclock {
                    line.option("-device", "vmclock");
                }
            }
            // For the exit status. Files, which the guest could ask for too, are a debugger's to open,
            // and there is none.
            Arch::Aarch64 => {
                line.option("-semihosting-config", "enable=on,target=gdb");
            }
        }
        if let Some(tree) = tree {
            line.option("-dtb", tree);
        }
        if self.rtc {
            line.option("-device", "virtio-rtc-pci");
        }
        if let Some(netdev) = self.netdev(ports) {
            line.option("-netdev", netdev);
            let device = match self.transport {
                // Without its ROM, which would only spend time looking for a boot server.
                Transport::Pci => "virtio-net-pci,netdev=net,romfile=",
                Transport::Mmio => {
                    line.option("-global", "virtio-mmio.force-legacy=false");
                    "virtio-net-device,netdev=net"
                }
            };
            let comma = if self.nic.is_empty() { "" } else { "," };
            line.option("-device", format!("{device}{comma}{}", self.nic));
        }
        match self.serial {
            SerialTo::Pty => line.option("-chardev", "pty,id=serial"),
            _ => line.option("-chardev", socket("serial", &directory.join("serial"))),
        };
        line.option("-serial", "chardev:serial");
        for name in ["qmp", "publisher"] {
            line.option("-chardev", socket(name, &directory.join(name)));
            line.option("-mon", format!("chardev={name},mode=control"));
        }
        if let Some(path) = &self.qmp_socket {
            line.option(
                "-chardev",
                [socket("other", path), ",server=on,wait=off".into()].join(OsStr::new("")),
            );
            line.option("-mon", "chardev=other,mode=control");
        }
        if let Some(bios) = &self.bios {
            line.option("-bios", bios);
        }
        if let Some(kernel) = &self.kernel {
            line.option("-kernel", kernel);
            if !self.append.is_empty() {
                line.option("-append", &self.append);
            }
        }
        if let Some(keys) = &self.ntp_keys {
            let mut file = OsString::from("name=opt/org.gnomon/ntp.keys,file=");
            file.push(escaped(keys));
            line.option("-fw_cfg", file);
        }
        if !self.reboots {
            line.flag("-no-reboot");
        }
        line.flag("-S");
        line.0.extend(self.extra.iter().cloned());
        line.0
    }

    /// What the device tree depends on.
    fn hardware(&self) -> Arguments {
        let mut line = Arguments::default();
        let (accel, cpu) = match self.accel {
            Accel::Tcg => ("tcg", self.cpu.as_str()),
            Accel::Kvm => ("kvm", "host"),
        };
        line.flag("-nodefaults")
            .flag("-no-user-config")
            .option("-display", "none");
        line.option("-machine", self.board.name())
            .option("-accel", accel)
            .option("-cpu", cpu);
        line.option("-m", format!("{}M", self.memory_mib));
        line
    }

    fn netdev(&self, ports: Option<Ports>) -> Option<OsString> {
        match &self.net {
            Net::None => None,
            Net::User { ntp, http } => {
                let (ntp, http) = ports.map_or((*ntp, *http), |ports| (ports.ntp, ports.http));
                let ntp = format!("hostfwd=udp:127.0.0.1:{ntp}-:123");
                let http = format!("hostfwd=tcp:127.0.0.1:{http}-:80");
                Some(format!("user,id=net,{ntp},{http}").into())
            }
            Net::Tap(interface) => {
                let mut netdev = OsString::from("tap,id=net,script=no,downscript=no,ifname=");
                netdev.push(escaped(interface));
                Some(netdev)
            }
            Net::Unix { local, remote } => {
                let mut netdev = OsString::from("dgram,id=net,local.type=unix,local.path=");
                netdev.push(escaped(local));
                netdev.push(",remote.type=unix,remote.path=");
                netdev.push(escaped(remote));
                Some(netdev)
            }
        }
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.as_ref().into());
        self
    }
}

fn socket(id: &str, path: &Path) -> OsString {
    let mut option = OsString::from(format!("socket,id={id},path="));
    option.push(escaped(path));
    option
}

/// The value of a QEMU option, in which a comma is written twice.
fn escaped(value: impl AsRef<OsStr>) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = value.as_ref().as_bytes();
    let doubled = bytes.iter().flat_map(|byte| {
        let times = if *byte == b',' { 2 } else { 1 };
        core::iter::repeat_n(*byte, times)
    });
    OsString::from_vec(doubled.collect())
}

#[cfg(test)]
mod tests {
    use super::super::Board;
    use super::*;

    fn line(machine: &Machine) -> String {
        let ports = Ports {
            ntp: 11123,
            http: 11180,
        };
        let arguments = machine.arguments(Path::new("/run/a,b"), None, Some(ports));
        arguments
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn command_line_says_everything() {
        let line = line(
            &Machine::new(Arch::X86_64)
                .kernel("image")
                .append("ip=dhcp serial=off"),
        );
        for part in [
            "-nodefaults -no-user-config -display none -machine q35 -accel tcg -cpu max -m 32M",
            "-device isa-debug-exit,iobase=0xf4,iosize=4",
            "-device vmclock",
            "-netdev user,id=net,hostfwd=udp:127.0.0.1:11123-:123,hostfwd=tcp:127.0.0.1:11180-:80",
            "-device virtio-net-pci,netdev=net,romfile=",
            "-chardev socket,id=serial,path=/run/a,,b/serial -serial chardev:serial",
            "-mon chardev=qmp,mode=control",
            "-kernel image -append ip=dhcp serial=off",
            "-S",
        ] {
            assert!(line.contains(part), "{part}\n{line}");
        }
    }

    #[test]
    fn every_choice_has_its_words() {
        let machine = || Machine::new(Arch::X86_64);
        let unix = Net::Unix {
            local: "/a".into(),
            remote: "/b,c".into(),
        };
        for (machine, part) in [
            (machine().board(Board::Pc), "-machine pc "),
            (machine().accel(Accel::Kvm), "-accel kvm -cpu host"),
            (machine().memory(16), "-m 16M "),
            (
                machine().net(Net::Tap("tap0".into())),
                "tap,id=net,script=no,downscript=no,ifname=tap0 ",
            ),
            (
                machine().net(unix),
                "local.path=/a,remote.type=unix,remote.path=/b,,c ",
            ),
            (
                machine().nic("disable-legacy=on"),
                "romfile=,disable-legacy=on ",
            ),
            (machine().serial(SerialTo::Pty), "-chardev pty,id=serial "),
            (machine().reboots(false), "-no-reboot"),
            (machine().rtc(true), "-device virtio-rtc-pci "),
            (
                machine().qmp_socket("/q"),
                "socket,id=other,path=/q,server=on,wait=off",
            ),
            (machine().arg("-global").arg("a.b=c"), "-global a.b=c"),
        ] {
            let line = line(&machine);
            assert!(line.contains(part), "{part}\n{line}");
        }
        assert!(!line(&machine().vmclock(false)).contains("vmclock"));
        assert!(!line(&machine().net(Net::None)).contains("virtio"));
        assert!(!line(&machine()).contains("-kernel"));
    }

    #[test]
    fn aarch64_has_a_line_of_its_own() {
        let machine = || Machine::new(Arch::Aarch64);
        let whole = line(&machine().transport(Transport::Mmio));
        for part in [
            "-machine virt -accel tcg -cpu max -m 32M",
            "-semihosting-config enable=on,target=gdb",
            "-global virtio-mmio.force-legacy=false -device virtio-net-device,netdev=net ",
        ] {
            assert!(whole.contains(part), "{part}\n{whole}");
        }
        assert!(!whole.contains("isa-debug-exit") && !whole.contains("-dtb"));
        let tree = machine().arguments(Path::new("/run"), Some(Path::new("/t,u")), None);
        let at = tree.iter().position(|word| word == "-dtb");
        assert_eq!(tree[at.expect("a tree") + 1], "/t,u", "not a list");
        let dump = machine()
            .arg("-smp")
            .arg("2")
            .dump_arguments(Path::new("/t,u"));
        let dump = dump.join(OsStr::new(" "));
        let dump = dump.to_string_lossy();
        assert!(
            dump.contains("-machine dumpdtb=/t,,u -serial null -smp 2"),
            "{dump}"
        );
        assert!(!dump.contains("chardev"), "{dump}");
    }

    #[test]
    fn only_arguments_of_ours_say_everything_of_a_tree() {
        let machine = || Machine::new(Arch::Aarch64);
        let said = machine().memory(64).tree_arguments().expect("all ours");
        assert!(said.contains(&"64M".into()), "{said:?}");
        assert_eq!(machine().arg("-readconfig").tree_arguments(), None);
        assert_eq!(machine().accel(Accel::Kvm).tree_arguments(), None);
    }
}
