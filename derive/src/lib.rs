//! `#[derive(Plain)]`.
