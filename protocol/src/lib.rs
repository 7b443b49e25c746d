#![doc = include_str!("../README.md")]

pub mod body;
pub mod fields;
pub mod frame;
pub mod header;
pub mod java_properties;
pub mod json;
pub mod language;
pub mod reply;
pub mod request;
