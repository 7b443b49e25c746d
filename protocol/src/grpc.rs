//! The messages of the gRPC protocol (`apache.rocketmq.v2`), compiled from `proto/`.

#![allow(
    clippy::all,
    unreachable_pub,
    missing_debug_implementations,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    reason = "the code is generated"
)]

include!(concat!(env!("OUT_DIR"), "/apache.rocketmq.v2.rs"));

/// The descriptors of all three files, as reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
