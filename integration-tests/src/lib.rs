#![doc = include_str!("../README.md")]

pub mod ask;
pub mod cluster;
pub mod stock;
pub mod suites;
pub mod wire;
