//! The JSON bodies of requests and answers, and the `config/*.json` files, as plain structs.
//!
//! They carry Java's names. Their fields stand in the order stock writes them, which is the
//! alphabet's; a field that is absent takes Java's default. Java maps and sets come in hash order,
//! ours are sorted. Where Java takes the present for a default (`DataVersion.timestamp`,
//! `SubscriptionData.subVersion`), ours is 0.

mod admin;
mod assignment;
mod client;
mod config_file;
mod connection;
mod group;
mod heartbeat;
mod lock;
mod mapping;
mod offset;
mod pop;
mod queue;
mod register;
mod route;
mod stats;
mod topic;
mod version;

pub use admin::*;
pub use assignment::*;
pub use client::*;
pub use config_file::*;
pub use connection::*;
pub use group::*;
pub use heartbeat::*;
pub use lock::*;
pub use mapping::*;
pub use offset::*;
pub use pop::*;
pub use queue::*;
pub use register::*;
pub use route::*;
pub use stats::*;
pub use topic::*;
pub use version::*;

#[cfg(test)]
mod tests;
