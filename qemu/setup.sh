#!/bin/sh
# Installs what is missing to build, run and test Gnomon, and says so; does nothing when all is there.
#
#   qemu/setup.sh build   the pinned toolchain's bare targets
#   qemu/setup.sh run     that, and a QEMU with the vmclock device; `run aarch64`: an aarch64 QEMU instead
#   qemu/setup.sh test    that, both QEMUs, and the programs the tests let judge the guest: chronyd, ntpdig, ntpd,
#                         timesyncd, gpsd, tshark, ping, ip; and QEMU 11.1 beside the build (qemu/qemu-11.sh)
#   qemu/setup.sh judges  that, chromium, and the judges that are no Debian packages: ntpd-rs and ntplib, into build/judges
#   qemu/setup.sh peer    that, and a Linux guest with chrony for `make bench-peer`, in build/peer
#   qemu/setup.sh miri    a nightly toolchain with Miri, for `make miri` only
#   qemu/setup.sh fuzz    a nightly toolchain, cargo-fuzz, and a C++ compiler for libFuzzer, for `make fuzz` only
#   qemu/setup.sh deny    cargo-deny, for `make deny`, into build/tools; it compiles for minutes
#
# Packages need root: without it, the one command that needs it is printed (`qemu/setup.sh packages ...`, which
# installs Debian packages and nothing else), and the status is 1.
set -eu

packages_only=
if [ "${1:-}" = packages ]; then
    packages_only=yes
    shift
fi
purpose=${1:-run}
arch=${2:-x86_64}
here=$(cd "$(dirname "$0")/.." && pwd)
toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$here/rust-toolchain.toml")
judges=$here/build/judges
peer=$here/build/peer
cargo_fuzz=0.13.2

say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root, or ends with the command to run.
as_root() {
    if [ "$(id -u)" -ne 0 ]; then
        say "that needs root; please run: sudo $here/qemu/setup.sh packages $purpose $arch"
        exit 1
    fi
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        say "failed: $*"
        exit 1
    fi
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

updated=
apt_update() {
    [ -n "$updated" ] || as_root apt-get update
    updated=yes
}
apt_install() {
    apt_update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

require_debian() {
    if ! have apt-get; then
        say "$1 is missing, and this machine has no apt-get: please install it by hand"
        exit 1
    fi
}

rust() {
    if ! have rustup; then
        say "rustup is missing: please install it first"
        exit 1
    fi
    if ! rustup toolchain list | grep -q "^$toolchain"; then
        say "installing Rust $toolchain"
        rustup toolchain install "$toolchain" --profile minimal --component clippy,rustfmt
    fi
    for target in x86_64-unknown-none aarch64-unknown-none; do
        if ! rustup target list --installed --toolchain "$toolchain" | grep -qx "$target"; then
            say "adding the Rust target $target"
            rustup target add --toolchain "$toolchain" "$target"
        fi
    done
}

# The host half (build scripts, the launcher) needs a linker.
linker() {
    have cc && return
    require_debian "a C linker (cc)"
    say "installing gcc, for its linker"
    apt_install gcc libc6-dev
}

nightly() {
    if ! rustup toolchain list | grep -q '^nightly'; then
        say "installing Rust nightly"
        rustup toolchain install nightly --profile minimal
    fi
}

miri() {
    nightly
    for component in miri rust-src; do
        if ! rustup component list --installed --toolchain nightly | grep -q "^$component"; then
            say "adding $component to Rust nightly"
            rustup component add --toolchain nightly "$component"
        fi
    done
}

# It only calls cargo and the targets: without optimization it is there in half the time.
cargo_fuzz() {
    nightly
    if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $cargo_fuzz" ]; then
        say "installing cargo-fuzz $cargo_fuzz"
        cargo install --quiet --locked --debug --force "cargo-fuzz@$cargo_fuzz"
    fi
}

# libFuzzer is C++.
cxx() {
    have c++ && return
    require_debian "a C++ compiler (c++)"
    say "installing g++, for libFuzzer"
    apt_install g++
}

# On x86 QEMU 10.0 brought the vmclock device. On Arm there is none, but one version serves both.
has_qemu() {
    case $1 in
    x86_64) have qemu-system-x86_64 && qemu-system-x86_64 -device help 2>/dev/null | grep -q '"vmclock"' ;;
    aarch64) have qemu-system-aarch64 && qemu-system-aarch64 --version | grep -Eq 'version [1-9][0-9]+\.' ;;
    *) say "no such architecture: $1" && exit 2 ;;
    esac
}

# Debian 12's own QEMU is 7.2, bookworm-backports has 10.0. Its address is that of the main archive this machine already
# uses.
qemu() {
    has_qemu "$1" && return
    case $1 in
    x86_64) wanted="qemu-system-x86 qemu-system-data seabios" ;;
    aarch64) wanted="qemu-system-arm qemu-system-data" ;;
    esac
    require_debian "QEMU 10.0 or later for $1"
    say "QEMU 10.0 or later for $1 is missing"
    as_root true
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    if [ "$codename" = bookworm ]; then
        apt_update
        if ! apt-get indextargets --format '$(CODENAME)' | grep -qx bookworm-backports; then
            archive=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^bookworm //p' | head -n 1)
            if [ -z "$archive" ]; then
                say "apt has no archive for bookworm to derive bookworm-backports from"
                exit 1
            fi
            say "adding bookworm-backports to apt (/etc/apt/sources.list.d/gnomon-backports.sources)"
            printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: %s\n' \
                "$archive" /usr/share/keyrings/debian-archive-keyring.gpg >/etc/apt/sources.list.d/gnomon-backports.sources
            updated=
        fi
        say "installing QEMU from bookworm-backports"
        # shellcheck disable=SC2086 # a list
        apt_install -t bookworm-backports $wanted
    else
        say "installing QEMU"
        # shellcheck disable=SC2086
        apt_install $wanted
    fi
    if ! has_qemu "$1"; then
        say "this QEMU is older than 10.0: $(qemu-system-"$1" --version | head -n 1)"
        exit 1
    fi
}

judge_packages() {
    if ! have ip; then
        require_debian "ip (iproute2)"
        say "installing iproute2, for the tests' network namespaces"
        apt_install iproute2
    fi
    if ! have ping; then
        require_debian "ping"
        say "installing ping, which the tests use"
        apt_install iputils-ping
    fi
    if ! have ntpdig; then
        require_debian "ntpdig"
        say "installing ntpdig, an NTP client that the tests use"
        apt_install ntpsec-ntpdig
    fi
    if ! have tshark; then
        require_debian "tshark"
        say "installing tshark, which looks at every frame the guest sends (120 MB)"
        apt_install tshark
    fi
    # What the programs are linked with that are only unpacked, see below.
    missing=
    for library in libacl.so.1:libacl1 libblkid.so.1:libblkid1 libbsd.so.0:libbsd0 libcap.so.2:libcap2 \
        libcrypt.so.1:libcrypt1 libdbus-1.so.3:libdbus-1-3 libedit.so.2:libedit2 libgcrypt.so.20:libgcrypt20 libgnutls.so.30:libgnutls30 \
        libip4tc.so.2:libip4tc2 libkmod.so.2:libkmod2 liblz4.so.1:liblz4-1 liblzma.so.5:liblzma5 \
        libmount.so.1:libmount1 libnettle.so.8:libnettle8 libpam.so.0:libpam0g libseccomp.so.2:libseccomp2 \
        libselinux.so.1:libselinux1 libssl.so.3:libssl3 libusb-1.0.so.0:libusb-1.0-0 libzstd.so.1:libzstd1; do
        /sbin/ldconfig -p | grep -q "${library%:*} " || missing="$missing ${library#*:}"
    done
    if [ -n "$missing" ]; then
        require_debian "a library of the time daemons"
        say "installing the libraries of the time daemons:$missing"
        apt_install $missing
    fi
}

# The time daemons refuse to be installed beside another one, and would steer this machine's clock: their packages are
# only unpacked, beside the build, which needs no root. build/judges/versions says which ones.
daemons() {
    mkdir -p "$judges"
    for package in chrony ntpsec systemd-timesyncd libsystemd-shared gpsd gpsd-clients libgps28 libbluetooth3; do
        grep -qs "^$package " "$judges/versions" && continue
        require_debian "$package"
        say "unpacking $package into build/judges, a judge that the tests use"
        [ "$(id -u)" -ne 0 ] || apt_update
        (cd "$judges" && apt-get download "$package" >"$log" 2>&1 && dpkg -x "$package"_*.deb . &&
            echo "$package $(dpkg-deb -f "$package"_*.deb Version)" >>versions && rm "$package"_*.deb) || {
            cat "$log" >&2
            say "failed: apt-get download $package"
            exit 1
        }
    done
}

# Of an exact version each, into build/judges.
ntpd_rs=1.9.0
ntplib=0.4.0
ntplib_hash=sha256:8d27375329ed7ff38755f7b6d4658b28edc147cadf40338a63a0da8133469d60

built_packages() {
    if ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
        require_debian "python3 with its module venv"
        say "installing python3-venv, for ntplib"
        apt_install python3-venv
    fi
}

# Looks at the guest's page, without a window.
browser() {
    have chromium && return
    require_debian "chromium"
    say "installing chromium, which looks at the page that the guest serves"
    apt_install chromium
}

built_judges() {
    if ! grep -qsx "ntpd-rs $ntpd_rs" "$judges/versions"; then
        say "building ntpd-rs $ntpd_rs into build/judges (minutes)"
        (cd "$here" && CARGO_TARGET_DIR="$judges/ntpd-rs/target" \
            cargo install ntpd --version "=$ntpd_rs" --locked --quiet --root "$judges/ntpd-rs")
        rm -rf "$judges/ntpd-rs/target"
        echo "ntpd-rs $ntpd_rs" >>"$judges/versions"
    fi
    if ! grep -qsx "ntplib $ntplib" "$judges/versions"; then
        say "installing ntplib $ntplib into build/judges"
        /usr/bin/python3 -m venv --clear "$judges/ntplib"
        echo "ntplib==$ntplib --hash=$ntplib_hash" >"$judges/ntplib/requirements.txt"
        "$judges/ntplib/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$judges/ntplib/requirements.txt"
        echo "ntplib $ntplib" >>"$judges/versions"
    fi
}

cargo_deny=0.20.2

deny() {
    "$here/build/tools/bin/cargo-deny" --version 2>/dev/null | grep -qx "cargo-deny $cargo_deny" && return
    say "building cargo-deny $cargo_deny into build/tools (minutes)"
    (cd "$here" && CARGO_TARGET_DIR="$here/build/tools/target" \
        cargo install cargo-deny --version "=$cargo_deny" --locked --quiet --root "$here/build/tools")
    rm -rf "$here/build/tools/target"
}

qemus() {
    qemu x86_64 && qemu aarch64
}

packages() {
    if ! have ip; then
        require_debian "ip (iproute2)"
        say "installing iproute2, for the tests' network namespaces"
        apt_install iproute2
    fi
    if ! have ping; then
        require_debian "ping"
        say "installing ping, which the tests use"
        apt_install iputils-ping
    fi
    if ! have ntpdig; then
        require_debian "ntpdig"
        say "installing ntpdig, an NTP client that the tests use"
        apt_install ntpsec-ntpdig
    fi
    # What chronyd is linked with: it is only unpacked, see below.
    for library in libcap.so.2 libedit.so.2 libgnutls.so.30 libnettle.so.8 libseccomp.so.2; do
        if ! /sbin/ldconfig -p | grep -q "$library"; then
            say "installing the libraries of chronyd"
            apt_install libcap2 libedit2 libgnutls30 libnettle8 libseccomp2
            break
        fi
    done
}

# chrony refuses to be installed beside another time daemon, and would steer this machine's clock: the package is only
# unpacked, beside the build, which needs no root.
chrony() {
    [ -x "$judges/usr/sbin/chronyd" ] && return
    require_debian "chronyd"
    say "unpacking chrony into build/judges, an NTP client that the tests use"
    [ "$(id -u)" -ne 0 ] || apt_update
    mkdir -p "$judges"
    (cd "$judges" && apt-get download chrony >"$log" 2>&1 && dpkg -x chrony_*.deb . && rm chrony_*.deb) || {
        cat "$log" >&2
        say "failed: apt-get download chrony"
        exit 1
    }
}

# The guest that `make bench-peer` compares with: Debian's kernel for virtual machines, which has ptp_vmclock since
# 6.16 and comes from trixie-backports; busybox; and this Debian's chrony with its libraries. All of it is
# only unpacked, and apt keeps what it knows of that archive in build/peer, too.
linux_guest() {
    [ -f "$peer/vmlinuz" ] && [ -f "$peer/initrd" ] && [ "$peer/initrd" -nt "$here/qemu/setup.sh" ] && return
    require_debian "a Linux kernel with ptp_vmclock"
    say "building a Linux guest with chrony in build/peer"
    archive=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^\(bookworm\|trixie\) //p' | head -n 1)
    if [ -z "$archive" ]; then
        say "apt has no archive for bookworm or trixie to derive trixie-backports from"
        exit 1
    fi
    rm -rf "$peer"
    mkdir -p "$peer/apt/etc" "$peer/apt/lists/partial" "$peer/apt/cache/archives/partial" "$peer/deb" "$peer/root"
    printf 'Types: deb\nURIs: %s\nSuites: trixie-backports\nComponents: main\nSigned-By: %s\n' \
        "$archive" /usr/share/keyrings/debian-archive-keyring.gpg >"$peer/apt/etc/peer.sources"
    {
        backports apt-get update &&
            (cd "$peer/deb" && apt-get download busybox-static && backports apt-get download $(kernel_packages)) &&
            for package in "$peer"/deb/*.deb; do dpkg -x "$package" "$peer/root"; done &&
            initramfs
    } >"$log" 2>&1 || {
        cat "$log" >&2
        say "failed: the Linux guest"
        exit 1
    }
    rm -rf "$peer/apt" "$peer/deb" "$peer/root" "$peer/initramfs"
}

# Runs one of apt's programs with trixie-backports for its only archive.
backports() {
    program=$1
    shift
    "$program" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$peer/apt/etc" \
        -o Dir::State::Lists="$peer/apt/lists" -o Dir::Cache="$peer/apt/cache" "$@"
}

# The packages of the newest kernel; how it is cut into packages changes from version to version.
kernel_packages() {
    release=$(backports apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: linux-image-//p' | head -n 1)
    backports apt-cache pkgnames linux- | grep -Ex "linux-(image|binary|modules)-$(echo "$release" | sed 's/[.+]/\\&/g')"
}

initramfs() {
    guest=$peer/initramfs
    mkdir -p "$guest/bin" "$guest/modules" "$guest/dev" "$guest/proc" "$guest/sys" "$guest/run" "$guest/var/lib/chrony"
    cp "$(find "$peer/root" -name 'vmlinuz*' -type f)" "$peer/vmlinuz"
    cp "$peer/root/bin/busybox" "$judges/usr/sbin/chronyd" "$guest/bin/"
    ldd "$judges/usr/sbin/chronyd" | grep -o '/[^ ]*' | while read -r library; do
        install -D "$library" "$guest$library"
    done
    mkdir -p "$guest/etc"
    echo root:x:0:0:root:/:/bin/sh >"$guest/etc/passwd"
    echo root:x:0: >"$guest/etc/group"
    # TAI-UTC for chrony; the device tells TAI. Debian 13 has this file in tzdata-legacy.
    install -D /usr/share/zoneinfo/right/UTC "$guest/usr/share/zoneinfo/right/UTC"
    : >"$guest/modules/order"
    for module in virtio_pci virtio_net ptp_vmclock; do module "$module"; done
    cat >"$guest/chrony.conf" <<'END'
refclock PHC /dev/ptp0 poll -2 dpoll -4 filter 4 tai
leapsectz right/UTC
makestep 0.001 -1
allow all
cmdport 0
END
    # What it has to do beside NTP (tests/src/busy.rs): files of the size of our page and of our status, and an answer to
    # each line on the console as long as that of our `time`.
    mkdir -p "$guest/www"
    cp "$here/kernel/src/http/page.html" "$guest/www/index.html"
    head -c 2400 /dev/zero | tr '\0' ' ' >"$guest/www/status"
    cat >"$guest/answer" <<'END'
#!/bin/busybox sh
while read -r line; do
    printf '%s s since 1970, as chrony has it, which follows vmclock\npeer> ' "$EPOCHREALTIME"
done
END
    cat >"$guest/init" <<'END'
#!/bin/busybox sh
# address=ADDRESS/LENGTH on the kernel's command line is for eth0; with busy=yes there is more than NTP to do.
b=/bin/busybox
$b mount -t devtmpfs none /dev
$b mount -t proc none /proc
$b mount -t sysfs none /sys
for module in $($b cat /modules/order); do $b insmod "/modules/$module.ko"; done
$b ip link set lo up
$b ip link set eth0 up
$b ip addr add "$address" dev eth0
while ! [ -c /dev/ptp0 ]; do
    $b usleep 1000
    $b insmod /modules/ptp_vmclock.ko 2>/dev/null
done
if [ -n "$busy" ]; then
    $b httpd -h /www
    $b sh /answer </dev/ttyS0 >/dev/ttyS0 &
fi
exec /bin/chronyd -d -u root -f /chrony.conf
END
    chmod +x "$guest/init"
    (cd "$guest" && find . | "$peer/root/bin/busybox" cpio -o -H newc) >"$peer/initrd"
}

# Puts a module into the initramfs, after those that it needs. One that is built in is in no package.
module() {
    file=$(find "$peer/root" -name "$1.ko.xz" -o -name "$1.ko" | head -n 1)
    if [ -z "$file" ] || grep -qx "$1" "$guest/modules/order"; then
        return 0
    fi
    case $file in
    *.xz) "$peer/root/bin/busybox" xz -dc "$file" ;;
    *) cat "$file" ;;
    esac >"$guest/modules/$1.ko"
    for needed in $(tr '\0' '\n' <"$guest/modules/$1.ko" | sed -n 's/^depends=//p' | tr ',' ' '); do
        (module "$needed")
    done
    echo "$1" >>"$guest/modules/order"
}

packages() {
    linker
    case $purpose in
    run) qemu "$arch" ;;
    test | peer) qemus && judge_packages ;;
    judges) qemus && judge_packages && built_packages && browser ;;
    fuzz) cxx ;;
    esac
}

case $purpose in
build | run | test | judges | peer | miri | deny | fuzz) ;;
*) say "usage: $0 [packages] build|run [x86_64|aarch64]|test|judges|peer|miri|deny|fuzz" && exit 2 ;;
esac
packages
[ -z "$packages_only" ] || exit 0
rust
case $purpose in
test) daemons && "$here/qemu/qemu-11.sh" ;;
judges) daemons && built_judges ;;
peer) daemons && linux_guest ;;
miri) miri ;;
fuzz) cargo_fuzz ;;
deny) deny ;;
esac
