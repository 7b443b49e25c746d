#![doc = include_str!("../README.md")]

pub mod fields;
pub mod frame;
pub mod header;
pub mod language;
pub mod name;
pub mod reply;
pub mod request;
