#![doc = include_str!("../README.md")]

pub mod clock;
pub mod connection;
pub mod outbox;
pub mod peer;
pub mod pool;
pub mod process;
pub mod server;
pub mod settings;
