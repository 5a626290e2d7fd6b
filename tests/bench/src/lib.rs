//! The benchmarks are in `benches`; a package has to have something beside them.
