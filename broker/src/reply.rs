//! Request-reply: the answer to a message goes straight to the client that waits for it.

use std::time::Duration;

use protocol::frame::Command;
use protocol::header::send::{ReplyMessage, Send, SendMessageReply};
use protocol::properties::{self, name as property};
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use remoting::clock;
use remoting::outbox::Outbox;
use store::{Batch, NewMessage};

use crate::answer::{self, Context};
use crate::send::not_pushed;
use crate::topics::perm;

/// How long the client that waits may take to say that it has the reply.
const PUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Codes 324 and 325.
pub fn send_reply(context: &Context<'_>, out: &mut Outbox) {
    match prepare(context) {
        Err(refusal) => out.now.refuse(context.to, &refusal),
        Ok((push, to_client, queue_id)) => {
            let broker = context.broker.clone();
            answer::later(context, out, async move {
                let peer = broker.clients.find(&to_client).ok_or_else(|| {
                    let remark =
                        format!("push reply message fail, channel of <{to_client}> not found.");
                    Refusal::new(ReplyCode::SystemError, remark)
                })?;
                let pushed = peer.call(push, PUSH_TIMEOUT).await;
                let failed = |why: String| {
                    let remark = format!("push reply message to {to_client} fail: {why}");
                    Refusal::new(ReplyCode::SystemError, remark)
                };
                let answer = pushed.map_err(|error| failed(error.to_string()))?;
                if answer.code != ReplyCode::Success.to_wire() {
                    return Err(failed(format!("it answered {}", answer.code)));
                }
                Ok(Command::reply(&SendMessageReply {
                    msg_id: "0".to_owned(),
                    queue_id,
                    queue_offset: 0,
                    transaction_id: None,
                    batch_uniq_id: None,
                    recall_handle: None,
                }))
            });
        }
    }
}

/// Checks, stores where that is wanted, and gives what is to be pushed to whom.
fn prepare(context: &Context<'_>) -> Result<(Command<'static>, String, i32), Refusal> {
    let broker = context.broker;
    let config = broker.config.load();
    let request = context.request;
    let send: Send<'_> = request.fields.read()?;
    let text = send.properties.unwrap_or_default();
    let Some(to_client) =
        properties::get_str(text.as_bytes(), property::MESSAGE_REPLY_TO_CLIENT).map(str::to_owned)
    else {
        let remark = "REPLY_TO_CLIENT property is null, can not reply message";
        return Err(Refusal::new(ReplyCode::SystemError, remark));
    };
    let topic = broker.topic(send.topic)?;
    if !perm::may_write(topic.config.perm) {
        let remark = format!("the topic[{}] sending message is forbidden", send.topic);
        return Err(Refusal::new(ReplyCode::NoPermission, remark));
    }
    let queue_id = send.queue_id.max(0);
    let now_ms = clock::now_ms();
    if config.store_replies {
        let mut batch = Batch::new();
        let parts = [text.as_bytes()];
        let message = NewMessage {
            flag: send.flag,
            sys_flag: send.sys_flag,
            born_timestamp: send.born_timestamp,
            born_host: context.peer.remote,
            store_host: broker.store_host,
            reconsume_times: send.reconsume_times.unwrap_or(0),
            prepared_transaction_offset: 0,
            body: &request.body,
            properties: &parts,
        };
        let queue = topic.queue(&broker.store, queue_id)?;
        broker.store.push(&mut batch, queue, &message).map_err(not_pushed)?;
        broker.append(&mut batch)?;
    }
    let mut pushed = text.as_bytes().to_vec();
    properties::set(&mut pushed, property::PUSH_REPLY_TIME, now_ms.to_string().as_bytes());
    let header = ReplyMessage {
        producer_group: send.producer_group.to_owned(),
        topic: send.topic.to_owned(),
        default_topic: send.default_topic.to_owned(),
        default_topic_queue_nums: send.default_topic_queue_nums,
        queue_id,
        sys_flag: send.sys_flag,
        born_timestamp: send.born_timestamp,
        flag: send.flag,
        properties: Some(String::from_utf8_lossy(&pushed).into_owned()),
        reconsume_times: send.reconsume_times,
        unit_mode: send.unit_mode,
        born_host: context.peer.remote.to_string(),
        store_host: broker.store_host.to_string(),
        store_timestamp: now_ms,
    };
    let code = RequestCode::PushReplyMessageToClient.to_wire();
    let push = Command::request(code, &header).with_body(request.body.to_vec());
    Ok((push, to_client, queue_id))
}
