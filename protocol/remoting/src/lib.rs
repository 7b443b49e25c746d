#![doc = include_str!("../README.md")]

pub mod clock;
pub mod connection;
mod look;
pub mod outbox;
pub mod peer;
pub mod pool;
pub mod process;
pub mod server;
pub mod settings;
pub mod workers;
