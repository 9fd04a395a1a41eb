//! poll → decode → dedup → batch → insert → commit

pub mod dedup;
