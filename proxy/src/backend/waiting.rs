//! Requests that brokers let wait: on connections of their own, several for those who wait in great numbers.
//!
//! A broker reads no more from a connection on which too many wait. Acknowledgements, sends and renewals must
//! not be behind them, or nobody who holds a message could settle it.

use std::time::Duration;

use protocol::frame::Command;
use remoting::peer::CallError;
use remoting::pool::Pool;
use remoting::process::Shutdown;
use remoting::tls::Connector;

/// Requests that wait on one connection, well below what a broker reads.
pub const WAITING_MAX: usize = 8192;
/// Connections to one broker. All of them together have room for more than may wait at ours.
const CONNECTIONS_MAX: usize = 16;

/// The connections on which nothing but waiting is done.
#[derive(Debug)]
pub struct Waiting {
    /// Used in this order, so that few who wait share one connection.
    pools: [Pool; CONNECTIONS_MAX],
}

impl Waiting {
    pub fn new(shutdown: &Shutdown) -> Self {
        Self { pools: std::array::from_fn(|_| Pool::new(shutdown.clone())) }
    }

    /// The same over encrypted connections, if there is something to encrypt them with.
    pub fn with_tls(self, tls: Option<&Connector>) -> Self {
        Self { pools: self.pools.map(|pool| pool.with_tls(tls.cloned())) }
    }

    /// Asks and waits for the answer; `None` when too many wait already.
    pub async fn call(
        &self,
        address: &str,
        request: Command<'static>,
        timeout: Duration,
    ) -> Result<Option<Command<'static>>, CallError> {
        for pool in &self.pools {
            let peer = pool.peer(address).await?;
            if peer.outstanding() < WAITING_MAX {
                return peer.call(request, timeout).await.map(Some);
            }
        }
        Ok(None)
    }
}
