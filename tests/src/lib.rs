//! Tests that boot the image.
