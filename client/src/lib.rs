#![doc = include_str!("../README.md")]

/// The services of the gRPC protocol.
pub mod service {
    #![allow(
        clippy::all,
        unreachable_pub,
        missing_debug_implementations,
        clippy::allow_attributes_without_reason,
        rustdoc::all,
        reason = "the code is generated"
    )]

    include!(concat!(env!("OUT_DIR"), "/apache.rocketmq.v2.rs"));
}
