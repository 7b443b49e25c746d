//! Tells brokers that the lowest broker id of their group has changed (905).
//!
//! Brokers serve this on the port they listen on, so it goes there and not down the connection
//! they registered over.

use std::time::Duration;

use protocol::frame::Command;
use protocol::header::route::NotifyMinBrokerIdChange;
use protocol::request::RequestCode;
use remoting::pool::Pool;
use remoting::process::Shutdown;
use remoting::tls::Connector;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::routes::Notice;

/// Notices that may wait to be sent.
const WAITING_MAX: usize = 1024;
/// A broker that cannot be reached by then learns it with its next registration.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub(crate) struct Notifier(mpsc::Sender<Notice>);

/// A place to leave notices, and what sends them.
pub(crate) fn notifier(
    tls: Option<Connector>,
    shutdown: Shutdown,
) -> (Notifier, impl Future<Output = ()>) {
    let (sender, mut waiting) = mpsc::channel(WAITING_MAX);
    let sending = async move {
        let pool = Pool::new(shutdown.clone()).with_tls(tls);
        while let Some(Some(notice)) = shutdown.run_until_cancelled(waiting.recv()).await {
            send(&pool, &notice).await;
        }
    };
    (Notifier(sender), sending)
}

impl Notifier {
    pub(crate) fn leave(&self, notice: Notice) {
        if let Err(error) = self.0.try_send(notice) {
            warn!(%error, "dropping a notice of a changed lowest broker id");
        }
    }
}

async fn send(pool: &Pool, notice: &Notice) {
    info!(?notice, "the lowest broker id has changed");
    let header = NotifyMinBrokerIdChange {
        min_broker_id: Some(notice.min_id),
        broker_name: None,
        min_broker_addr: Some(notice.min_address.clone()),
        offline_broker_addr: notice.offline_address.clone(),
        ha_broker_addr: notice.ha_address.clone(),
    };
    let code = RequestCode::NotifyMinBrokerIdChange.to_wire();
    let told = notice.recipients.iter().map(|address| {
        let request = Command::request(code, &header);
        async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, pool.peer(address)).await;
            match connected {
                Ok(Ok(peer)) => {
                    if let Err(error) = peer.push(request) {
                        debug!(%address, %error, "a broker could not be told");
                    }
                }
                Ok(Err(error)) => debug!(%address, %error, "a broker could not be told"),
                Err(_) => debug!(%address, "a broker could not be reached in time"),
            }
        }
    });
    futures_util::future::join_all(told).await;
}
