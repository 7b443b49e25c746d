//! Which function answers which request. Read this file to see what a broker does.

use protocol::request::RequestCode;
use remoting::outbox::Outbox;

use crate::answer::{Context, answer, blocking, blocking_durably, durably};
use crate::{
    admin, assignment, clients, delay, offsets, pop, pull, query, reply, retry, transaction,
};

/// Serves one request other than a send.
pub fn serve(context: &Context<'_>, code: RequestCode, out: &mut Outbox) {
    use RequestCode as Code;
    match code {
        // Consuming
        Code::PullMessage | Code::LitePullMessage => pull::pull(context, out),
        Code::QueryConsumerOffset => answer(context, out, offsets::requests::query),
        Code::UpdateConsumerOffset => durably(context, out, offsets::requests::update),
        Code::GetMaxOffset => answer(context, out, offsets::requests::max),
        Code::GetMinOffset => answer(context, out, offsets::requests::min),
        Code::SearchOffsetByTimestamp => blocking(context, out, offsets::requests::search),
        Code::GetEarliestMsgStoretime => blocking(context, out, offsets::requests::earliest),
        Code::ConsumerSendMsgBack => retry::send_back(context, out),
        Code::PopMessage => pop::requests::pop(context, out),
        Code::AckMessage => answer(context, out, pop::requests::ack),
        Code::BatchAckMessage => answer(context, out, pop::requests::batch_ack),
        Code::ChangeInvisibleTime => answer(context, out, pop::requests::change_invisible),
        Code::PollingInfo => answer(context, out, pop::requests::polling_info),
        Code::Notification => pop::requests::notification(context, out),
        Code::PeekMessage => pop::requests::peek(context, out),
        Code::QueryAssignment => assignment::query(context, out),
        Code::SetMessageRequestMode => durably(context, out, assignment::set_mode),
        Code::GetAllMessageRequestMode => answer(context, out, assignment::modes),

        // Clients
        Code::Heartbeat => answer(context, out, clients::requests::heartbeat),
        Code::UnregisterClient => answer(context, out, clients::requests::unregister),
        Code::CheckClientConfig => answer(context, out, clients::requests::check_config),
        Code::GetConsumerListByGroup => answer(context, out, clients::requests::consumer_list),
        Code::LockBatchMq => answer(context, out, clients::requests::lock),
        Code::UnlockBatchMq => answer(context, out, clients::requests::unlock),
        Code::SendReplyMessage | Code::SendReplyMessageV2 => reply::send_reply(context, out),

        // Transactions
        Code::EndTransaction => blocking_durably(context, out, transaction::end),

        // Finding messages
        Code::QueryMessage => blocking(context, out, query::by_key),
        Code::ViewMessageById => blocking(context, out, query::by_position),

        // Replicas and tools that copy the state
        Code::GetAllDelayOffset => answer(context, out, delay::offsets),

        // Operators
        _ => admin::serve(context, code, out),
    }
}
