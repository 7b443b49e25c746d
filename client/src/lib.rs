#![doc = include_str!("../README.md")]

mod body;
mod core;
mod credentials;
mod delivery;
mod dial;
mod endpoints;
mod error;
mod id;
pub mod message;
mod name;
mod options;
pub mod producer;
pub mod push;
mod retry;
mod route;
mod session;
mod settings;
mod settle;
pub mod simple;
mod transaction;

pub use credentials::Credentials;
pub use delivery::Delivery;
pub use dial::Security;
pub use endpoints::{Address, Endpoints};
pub use error::Error;
pub use message::Message;
pub use name::{Group, Topic};
pub use options::Options;
pub use producer::{Producer, Receipt};
pub use protocol::grpc::Code;
pub use push::{Outcome, PushConsumer};
pub use settings::Filter;
pub use simple::SimpleConsumer;
pub use transaction::{Resolution, Transaction};

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
