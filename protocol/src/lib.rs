#![doc = include_str!("../README.md")]

pub mod body;
pub mod fields;
pub mod frame;
pub mod grpc;
pub mod header;
pub mod id;
pub mod java_properties;
pub mod json;
pub mod language;
pub mod message;
pub mod name;
pub mod properties;
pub mod proxy_header;
pub mod record;
pub mod reply;
pub mod request;
