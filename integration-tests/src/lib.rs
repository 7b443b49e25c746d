#![doc = include_str!("../README.md")]

pub mod cluster;
pub mod wire;
