#![doc = include_str!("../README.md")]

pub mod admin;
mod authority;
pub mod backend;
pub mod checks;
pub mod clients;
mod codec;
pub mod config;
pub mod front;
pub mod grpc;
pub mod handle;
pub mod listener;
pub mod message;
pub mod popped;
pub mod process;
pub mod receipts;
pub mod relay;
pub mod renewal;

/// The services of the gRPC protocol.
pub mod service {
    #![allow(
        clippy::all,
        clippy::too_many_lines,
        unreachable_pub,
        missing_debug_implementations,
        clippy::allow_attributes_without_reason,
        rustdoc::all,
        reason = "the code is generated"
    )]

    include!(concat!(env!("OUT_DIR"), "/apache.rocketmq.v2.rs"));
}
