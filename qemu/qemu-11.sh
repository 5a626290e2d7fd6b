#!/bin/sh
# Unpacks QEMU 11.1, which has virtio-rtc, with all its libraries into build/qemu-11, for the tests that need it, and
# libfaketime, which gives it the time of another host: nothing is installed, and no root is needed. It is in Debian 13's backports; its libraries are not those of this
# machine, so that it is started by its own loader (build/qemu-11/qemu-system-*).
#
# apt has a root of its own for that, and checks the archive's signature. Where this QEMU cannot be had, the reason is
# kept in build/qemu-11.reason, and printed by the tests that do not run then; the status is 0.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
home=$here/build/qemu-11
reason=$here/build/qemu-11.reason
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
new=$home.new

say() { echo "setup: $*" >&2; }
give_up() {
    say "no QEMU 11.1: $*"
    echo "$*" >"$reason"
    rm -rf "$new"
    exit 0
}

[ -x "$home/qemu-system-aarch64" ] && exit 0
mkdir -p "$here/build"
rm -rf "$new"
command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "this machine has no apt-get"
[ -r "$keyring" ] || give_up "there is no $keyring to check the archive by"

# The archive is the one that this machine already uses for Debian itself.
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
archive=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$codename //p" | head -n 1)
[ -n "$archive" ] || give_up "apt has no archive for $codename to derive trixie-backports from (apt-get update?)"

say "unpacking QEMU 11.1 into build/qemu-11, for the tests of virtio-rtc (50 MB)"
private=$new/apt
mkdir -p "$private/state/lists/partial" "$private/cache/archives/partial" "$new/root"
: >"$private/status"
for suite in trixie trixie-backports; do
    echo "deb [signed-by=$keyring] $archive $suite main"
done >"$private/sources.list"
ours() {
    # Of this machine's configuration what reaches the archive (a proxy) stays.
    apt-get -q -o Dir::Etc::SourceList="$private/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$private/state" -o Dir::State::status="$private/status" -o Dir::Cache="$private/cache" \
        -o Debug::NoLocking=true -o APT::Sandbox::User="$(id -un)" -o APT::Update::Error-Mode=any \
        -o Acquire::Languages=none "$@" >"$new/log" 2>&1
}
failed() {
    tail -n 5 "$new/log" >&2
    give_up "apt-get $1 failed: $(grep -m 1 '^E: ' "$new/log" || echo 'it does not say why')"
}
ours update || failed update
ours install --download-only -y --no-install-recommends -t trixie-backports qemu-system-x86 qemu-system-arm libfaketime ||
    failed download
for package in "$private"/cache/archives/*.deb; do
    dpkg -x "$package" "$new/root" || give_up "dpkg cannot unpack $package"
done
rm -rf "$private" "$new/log" "$new/root/usr/share/doc" "$new/root/usr/share/man" "$new/root/usr/share/locale"

loader=$(cd "$new/root" && find usr -name 'ld-linux*.so.*' -path 'usr/lib/*-linux-gnu/*' | head -n 1)
[ -n "$loader" ] || give_up "its C library has no loader"
libraries=$(dirname "$loader")
for program in qemu-system-x86_64 qemu-system-aarch64; do
    cat >"$new/$program" <<END
#!/bin/sh
# QEMU by its own loader and libraries (made by qemu/qemu-11.sh).
root=\$(dirname "\$0")/root
QEMU_MODULE_DIR=\$root/$libraries/qemu
export QEMU_MODULE_DIR
# With FAKETIME set, its clock of the time of day is another one (faketime(1)).
exec "\$root/$loader" --library-path "\$root/$libraries" \\
    \${FAKETIME:+--preload "\$root/$libraries/faketime/libfaketimeMT.so.1"} --argv0 $program "\$root/usr/bin/$program" \\
    -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
END
    chmod +x "$new/$program"
    "$new/$program" -device help 2>/dev/null | grep -q '"virtio-rtc-pci"' ||
        give_up "$("$new/$program" --version 2>&1 | head -n 1): it has no virtio-rtc-pci"
done
rm -rf "$home"
mv "$new" "$home"
rm -f "$reason"
