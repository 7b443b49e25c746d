#![doc = include_str!("../README.md")]

pub mod body;
pub mod java_properties;
pub mod json;
