#![doc = include_str!("../README.md")]

pub mod id;
pub mod message;
pub mod properties;
pub mod record;
