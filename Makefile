# The verbs. Each is a line or two; logic lives in Rust or in qemu/setup.sh.
.DEFAULT_GOAL := help
.PHONY: help build run smoke test judges bench bench-peer icount lint loom miri pages doc clean

GUEST := --profile guest -p gnomon --target
ARCH ?= x86_64
TARGET = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 14

build: ## build/gnomon-x86_64.elf, build/gnomon-aarch64.img and build/gnomon-qemu
	@qemu/setup.sh build
	cargo build --locked $(GUEST) x86_64-unknown-none
	cargo build --locked $(GUEST) aarch64-unknown-none
	cargo build --locked --release -p gnomon-qemu
	@mkdir -p build
	@cp $(TARGET)/x86_64-unknown-none/guest/gnomon build/gnomon-x86_64.elf
	@cp $(TARGET)/aarch64-unknown-none/guest/gnomon build/gnomon-aarch64.img
	@chmod -x build/gnomon-aarch64.img
	@for arch in x86_64 aarch64; do cp $(TARGET)/$$arch-unknown-none/guest/gnomon.map build/gnomon-$$arch.map; done
	@cp $(TARGET)/release/gnomon-qemu build/gnomon-qemu

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
	@$(MAKE) --no-print-directory build
	cargo test --locked --release -p gnomon-clock -p gnomon-kernel -p gnomon-arch -p gnomon-qemu
	cargo test --locked --release -p gnomon-tests

judges: ## let every NTP client judge the guest, those that have to be compiled too: a table
	@qemu/setup.sh judges
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin judges

bench: ## measure: power-on to first answer, load, image, least memory, instructions
	@qemu/setup.sh test
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin measure
	cargo run --locked --release -p gnomon-tests --bin instructions

bench-peer: ## the same load on Linux with chrony in the same QEMU, side by side
	@qemu/setup.sh peer
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin peer

icount: ## count the guest's instructions, compare with tests/instructions.txt (ARGS=--record writes it)
	@qemu/setup.sh test
	@$(MAKE) --no-print-directory build
	cargo run --locked --release -p gnomon-tests --bin instructions -- $(ARGS)

lint: ## rustfmt, clippy on the host and the bare target, docs: no warnings
	@qemu/setup.sh build
	cargo fmt --all --check
	cargo clippy --locked --workspace --exclude gnomon --all-targets -- -D warnings
	cargo clippy --locked $(GUEST) x86_64-unknown-none -- -D warnings
	cargo clippy --locked $(GUEST) aarch64-unknown-none -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --exclude gnomon --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(GUEST) x86_64-unknown-none --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(GUEST) aarch64-unknown-none -p gnomon-arch --no-deps

loom: ## the seqlock and the notifications in every order of loads and stores that the memory model allows
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom cargo test --locked --release -p gnomon-clock -p gnomon-arch --test loom

pages: ## 100 million random pages against exact arithmetic
	GNOMON_PAGES=100000000 cargo test --locked --release -p gnomon-clock --test bounds -- --nocapture

miri: ## the atomics and the unsafe code that can run on the host, under Miri (nightly)
	@qemu/setup.sh miri
	MIRIFLAGS=-Zmiri-ignore-leaks cargo +nightly miri test --locked -p gnomon-arch --lib
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked -p gnomon-clock --test page --test clock --test own

doc: ## the crates' documentation
	cargo doc --locked --workspace --exclude gnomon --no-deps

clean: ## remove what was built
	cargo clean
	rm -rf build
