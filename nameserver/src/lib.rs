#![doc = include_str!("../README.md")]

pub mod config;
mod dispatch;
mod durable;
mod handle;
mod kv;
mod notify;
pub mod routes;
mod server;

pub use server::{Running, start};
