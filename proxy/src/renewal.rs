//! Renews receipts in time, and gives back those whose clients are gone: the driver of [`crate::receipts`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use protocol::grpc::Code;
use remoting::clock;
use remoting::process::Shutdown;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::front::{AT_ONCE_MAX, Front};
use crate::grpc::status::Failure;
use crate::handle::Handle;
use crate::receipts::{Left, Renewal};

/// How long a process that ends takes to give back what nobody else can.
const RETURN_MAX: Duration = Duration::from_secs(3);

/// Looks at receipts and clients again and again until `served`: until nobody settles anything any more.
pub async fn run(front: Arc<Front>, served: Shutdown) {
    let mut period = tokio::time::interval(front.config.renew_period);
    let mut renewing: HashMap<String, JoinHandle<()>> = HashMap::new();
    while served.run_until_cancelled(period.tick()).await.is_some() {
        front.stats.sample(clock::instant());
        expire(&front);
        renewing.retain(|_, task| !task.is_finished());
        // A broker that does not answer has but its own receipts waiting.
        let due =
            front.receipts.lock().due(clock::now_ms(), |broker| renewing.contains_key(broker));
        for (broker, renewals) in due {
            renewing.insert(broker, tokio::spawn(renew_all(front.clone(), renewals)));
        }
    }
    renewing.into_values().for_each(|task| task.abort());
    let left = front.receipts.lock().end();
    let count = left.len();
    if tokio::time::timeout(RETURN_MAX, front.give_back(left)).await.is_err() {
        debug!(count, "not all messages could be given back in time");
    }
}

/// Forgets clients that are silent.
fn expire(front: &Arc<Front>) {
    for client in front.clients.expire(front.config.client_silent_max, clock::instant()) {
        let left = front.receipts.lock().leave(&client);
        debug!(client, messages = left.len(), "a client is silent for too long");
        if !left.is_empty() {
            let front = front.clone();
            tokio::spawn(async move { front.give_back(left).await });
        }
    }
}

/// Renews what is due of one broker.
async fn renew_all(front: Arc<Front>, renewals: Vec<Renewal>) {
    let each = |renewal| renew(&front, renewal);
    stream::iter(renewals).for_each_concurrent(AT_ONCE_MAX, each).await;
}

async fn renew(front: &Front, renewal: Renewal) {
    if !front.receipts.lock().begin(&renewal, clock::now_ms()) {
        return;
    }
    let (group, topic) = (&renewal.group, &renewal.topic);
    let outcome = match Handle::parse(&renewal.newest) {
        Ok(handle) => front.hide(group, topic, &handle, renewal.invisible_ms, false).await,
        Err(error) => Err(Failure::new(Code::InvalidReceiptHandle, error.to_string())),
    };
    match outcome {
        Ok(newest) => {
            let visible_ms = Handle::parse(&newest).map_or(0, |handle| handle.visible_at_ms());
            let held = front.receipts.lock().renewed(&renewal, newest.clone(), visible_ms);
            if !held {
                // Whoever gave it back in the meantime named a handle that the broker had just replaced.
                let (group, topic) = (group.clone(), topic.clone());
                front.give_back(vec![Left { group, topic, handle: newest }]).await;
            }
        }
        Err(failure) => {
            debug!(group, topic, %failure, "a receipt is not renewed");
            let finally = failure.code == Code::InvalidReceiptHandle;
            front.receipts.lock().failed(&renewal, finally);
        }
    }
    front.renewed.notify_waiters();
}
