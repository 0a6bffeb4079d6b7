//! `ringrift`: keeps a self-play training pipeline running unattended.

fn main() {}
