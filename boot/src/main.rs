//! How the image starts.
fn main() {}
