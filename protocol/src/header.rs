//! What each request and reply says, by subject. One plain struct a header, in Java's field names.

use crate::header;

pub mod auth;
pub mod client;
pub mod controller;
pub mod group;
pub mod lite;
pub mod offset;
pub mod pop;
pub mod pull;
pub mod query;
pub mod replication;
pub mod route;
pub mod send;
pub mod stats;
pub mod topic;
pub mod transaction;

header! {
    /// A request or a reply with nothing to say beyond its code.
    pub struct Empty {}
}

header! {
    /// Who a request is for; any request may carry it, whatever else it says.
    pub struct Routing {
        pub broker_name: Option<String> as "bname",
        pub namespace: Option<String> as "ns",
        pub namespaced: Option<bool> as "nsd",
        pub oneway: Option<bool> as "oway",
        pub logical_queue: Option<bool> as "lo",
    }
}
