# The verbs. Each is a line or two; logic lives in Rust or in qemu/setup.sh.
.DEFAULT_GOAL := help
.PHONY: help build provoke run smoke test test-long soak judges bench bench-clock bench-peer icount lint deny advisories loom miri fuzz pages doc clean

GUEST := --profile guest -p gnomon --target
# What .cargo/config.toml says of aarch64 to who only checks, without the flag that rustc warns of.
CHECKED := RUSTFLAGS='--cfg aes_backend="soft" --cfg aes_backend_soft="compact"'
ARCH ?= x86_64
TARGET = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 14

build: ## build/gnomon-x86_64.elf, build/gnomon-aarch64.img (as they were linked: build/plain/) and build/gnomon-qemu
	@qemu/setup.sh build
	cargo build --locked $(GUEST) x86_64-unknown-none
	cargo build --locked $(GUEST) aarch64-unknown-none
	cargo build --locked --release -p gnomon-qemu -p gnomon-pack
	@mkdir -p build/plain
	@cp $(TARGET)/x86_64-unknown-none/guest/gnomon build/plain/gnomon-x86_64.elf
	@cp $(TARGET)/aarch64-unknown-none/guest/gnomon build/plain/gnomon-aarch64.img
	@chmod -x build/plain/gnomon-aarch64.img
	@for image in x86_64.elf aarch64.img; do $(TARGET)/release/gnomon-pack \
		$(TARGET)/$${image%.*}-unknown-none/guest/unpacker build/plain/gnomon-$$image build/gnomon-$$image || exit; done
	@for arch in x86_64 aarch64; do for bin in gnomon unpacker; do \
		cp $(TARGET)/$$arch-unknown-none/guest/$$bin.map build/$$bin-$$arch.map; done; done
	@cp $(TARGET)/release/gnomon-qemu build/gnomon-qemu

provoke: ## build/provoke-*: images that fail when the command line asks them to, for the tests alone
	@qemu/setup.sh build
	cargo build --locked $(GUEST) x86_64-unknown-none --features provoke
	cargo build --locked $(GUEST) aarch64-unknown-none --features provoke
	@mkdir -p build
	@cp $(TARGET)/x86_64-unknown-none/guest/gnomon build/provoke-gnomon-x86_64.elf
	@cp $(TARGET)/aarch64-unknown-none/guest/gnomon build/provoke-gnomon-aarch64.img
	@chmod -x build/provoke-gnomon-aarch64.img

run: ## boot the image under QEMU with the host's time (ARCH=aarch64, ARGS="--seconds 10 ...")
	@qemu/setup.sh run $(ARCH)
	@$(MAKE) --no-print-directory build
	@build/gnomon-qemu run --arch $(ARCH) $(ARGS)

smoke: ## the guest's smoke test: TAP, and an exit status (ARCH=aarch64, ARGS="--scenario FILE ...")
	@qemu/setup.sh run $(ARCH)
	@$(MAKE) --no-print-directory build
	@build/gnomon-qemu smoke --arch $(ARCH) $(ARGS)

test: ## everything: host tests, and the tests that boot the image under QEMU
	@qemu/setup.sh test
	@$(MAKE) --no-print-directory provoke build
	cargo test --locked --release -p gnomon-clock -p gnomon-kernel -p gnomon-arch -p gnomon-pack -p gnomon-qemu
	cargo test --locked --release -p gnomon-tests

test-long: ## the tests that take minutes: a soak of five minutes on each architecture, 100 million pages
	@$(MAKE) --no-print-directory soak SECONDS=300 ARCH=x86_64
	@$(MAKE) --no-print-directory soak SECONDS=300 ARCH=aarch64
	@$(MAKE) --no-print-directory pages

soak: ## a guest under mixed load for an hour, every answer judged, and a summary (SECONDS=300, ARCH=aarch64); as root
	@qemu/setup.sh test
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin soak -- $(or $(SECONDS),3600) $(ARCH)

judges: ## let every NTP client judge the guest, those that have to be compiled too: a table
	@qemu/setup.sh judges
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin judges

bench: ## measure: power-on to first answer, load, image, least memory, instructions
	@qemu/setup.sh test
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin measure
	cargo run --locked --release -p gnomon-tests --bin instructions

bench-clock: ## what a reading of the clock costs on this host, beside the host's own and ClockBound's
	CARGO_TARGET_DIR=$(TARGET)/bench cargo bench --locked --manifest-path tests/bench/Cargo.toml --bench clock

bench-peer: ## the same load on Linux with chrony in the same QEMU, side by side
	@qemu/setup.sh peer
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin peer

icount: ## count the guest's instructions, compare with tests/instructions.txt (ARGS=--record writes it)
	@qemu/setup.sh test
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin instructions -- $(ARGS)

# Neither workspace of its own waits for what it does not run: clippy links nothing, so it needs no fuzzer.
lint: ## rustfmt, clippy on the host and the bare target, docs: no warnings
	@qemu/setup.sh build
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/bench/Cargo.toml --check
	cargo clippy --locked --workspace --exclude gnomon --all-targets -- -D warnings
	cargo clippy --locked $(GUEST) x86_64-unknown-none -- -D warnings
	$(CHECKED) cargo clippy --locked $(GUEST) aarch64-unknown-none -- -D warnings
	$(CHECKED) cargo clippy --locked $(GUEST) aarch64-unknown-none --features provoke -- -D warnings
	CUSTOM_LIBFUZZER_PATH=/none cargo clippy --locked --target-dir $(TARGET) --manifest-path tests/fuzz/Cargo.toml --all-targets -- -D warnings
	cargo clippy --locked --target-dir $(TARGET) --manifest-path tests/bench/Cargo.toml --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --exclude gnomon --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(GUEST) x86_64-unknown-none --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(GUEST) aarch64-unknown-none -p gnomon-arch --no-deps

DENY = PATH="$(CURDIR)/build/tools/bin:$$PATH" cargo deny --locked check

deny: ## licenses, duplicates and sources of every dependency, by cargo-deny
	@qemu/setup.sh deny
	$(DENY) licenses bans sources

advisories: ## what is known against any dependency; fetches cargo-deny's database
	@qemu/setup.sh deny
	$(DENY) advisories

loom: ## the seqlock and the notifications in every order of loads and stores that the memory model allows
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom cargo test --locked --release -p gnomon-clock -p gnomon-arch --test loom

pages: ## 100 million random pages against exact arithmetic
	GNOMON_PAGES=100000000 cargo test --locked --release -p gnomon-clock --test bounds -- --nocapture

# Statics are stood in for by what is leaked; physical addresses are pointers that have been numbers.
MIRI_ARCH := -Zmiri-ignore-leaks -Zmiri-permissive-provenance
miri: ## the atomics and the unsafe code that can run on the host, under Miri (nightly)
	@qemu/setup.sh miri
	MIRIFLAGS="$(MIRI_ARCH)" cargo +nightly miri test --locked -p gnomon-arch --lib
	MIRIFLAGS="$(MIRI_ARCH)" cargo +nightly miri test --locked --target aarch64-unknown-linux-gnu -p gnomon-arch --lib machine::mmu
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked -p gnomon-clock --test page --test clock --test own

SECONDS ?= 10
fuzz: ## hostile input for everything that reads bytes from outside, SECONDS=10 for each target (nightly): a table
	@qemu/setup.sh fuzz
	cargo +nightly fetch --locked --manifest-path tests/fuzz/Cargo.toml
	cargo +nightly fuzz build --fuzz-dir tests/fuzz --sanitizer none --target-dir $(TARGET)/fuzz
	cargo run --locked --release -p gnomon-tests --bin fuzz -- $(TARGET)/fuzz $(SECONDS) $(TARGETS)

doc: ## the crates' documentation
	cargo doc --locked --workspace --exclude gnomon --no-deps

clean: ## remove what was built
	cargo clean
	rm -rf build
