#![doc = include_str!("../README.md")]

pub mod clock;
pub mod connection;
pub mod inside;
mod look;
pub mod opening;
pub mod outbox;
pub mod peer;
pub mod pool;
pub mod process;
pub mod server;
pub mod settings;
pub mod tls;
pub mod workers;
