//! Which queues a consumer works on, shared out by the broker, and whether its group pulls them or pops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::body::{
    MessageModel, MessageQueue, MessageQueueAssignment, MessageRequestMode, MessageRequestModeFile,
    QueryAssignmentRequestBody, QueryAssignmentResponseBody, SetMessageRequestModeRequestBody,
    TopicRouteData,
};
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::route::GetRouteInfo;
use protocol::json::{self, Dialect};
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use remoting::outbox::Outbox;
use tracing::debug;

use crate::answer::{self, Context, Outcome};
use crate::broker::Broker;
use crate::event::Event;
use crate::topics::perm;

/// How long a nameserver may take to say where a topic is.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pairs of topic and group that may have a mode of their own.
const MODES_MAX: usize = 1_000_000;

/// How groups consume topics, where it was said.
#[derive(Debug, Default)]
pub struct Modes {
    table: Mutex<BTreeMap<String, BTreeMap<String, SetMessageRequestModeRequestBody>>>,
}

impl Modes {
    pub fn get(&self, topic: &str, group: &str) -> Option<SetMessageRequestModeRequestBody> {
        self.table.lock().get(topic)?.get(group).cloned()
    }

    pub fn set(&self, mode: SetMessageRequestModeRequestBody) {
        let mut table = self.table.lock();
        table.entry(mode.topic.clone()).or_default().insert(mode.consumer_group.clone(), mode);
    }

    pub fn forget_topic(&self, topic: &str) {
        self.table.lock().remove(topic);
    }

    pub fn forget_group(&self, group: &str) {
        let mut table = self.table.lock();
        for groups in table.values_mut() {
            groups.remove(group);
        }
        table.retain(|_, groups| !groups.is_empty());
    }

    pub fn clear(&self) {
        self.table.lock().clear();
    }

    pub fn len(&self) -> usize {
        self.table.lock().values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.table.lock().is_empty()
    }

    /// As RocketMQ's file has it.
    pub fn file(&self) -> MessageRequestModeFile {
        MessageRequestModeFile { message_request_mode_map: self.table.lock().clone() }
    }
}

/// Code 401.
pub fn set_mode(context: &Context<'_>) -> Outcome {
    let mode: SetMessageRequestModeRequestBody = context.body()?;
    let broker = context.broker;
    let SetMessageRequestModeRequestBody { topic, consumer_group: group, .. } = &mode;
    if name::retry_group(topic).is_some() {
        let remark = "retry topic is not allowed to set mode";
        return Err(Refusal::new(ReplyCode::NoPermission, remark));
    }
    if broker.topics.get(topic).is_none() {
        let remark = format!("topic[{topic}] not exist");
        return Err(Refusal::new(ReplyCode::TopicNotExist, remark));
    }
    broker.group(group)?;
    if broker.modes.get(topic, group).is_none() && broker.modes.len() >= MODES_MAX {
        let remark = format!("there are {MODES_MAX} modes already, the limit of a broker");
        return Err(Refusal::new(ReplyCode::SystemBusy, remark));
    }
    broker.record(&[Event::RequestMode(mode)])?;
    Ok(Command::reply(&Empty {}))
}

/// Code 402: every mode that was set, as the file has them.
pub fn modes(context: &Context<'_>) -> Outcome {
    let body = json::write(&context.broker.modes.file(), Dialect::Fastjson);
    Ok(Command::reply(&Empty {}).with_body(body))
}

/// Code 400.
pub fn query(context: &Context<'_>, out: &mut Outbox) {
    let broker = context.broker.clone();
    match context.body::<QueryAssignmentRequestBody>() {
        Ok(request) => answer::later(context, out, async move {
            let assigned = assigned(&broker, &request).await;
            let body = QueryAssignmentResponseBody { message_queue_assignments: assigned };
            Ok(Command::reply(&Empty {}).with_body(json::write(&body, Dialect::Fastjson)))
        }),
        Err(refusal) => out.now.refuse(context.to, &refusal),
    }
}

/// What a client shall work on; nothing at all when that cannot be told, and it shall go on as it does.
pub async fn assigned(
    broker: &Arc<Broker>,
    request: &QueryAssignmentRequestBody,
) -> Option<Vec<MessageQueueAssignment>> {
    let QueryAssignmentRequestBody { topic, consumer_group: group, client_id, .. } = request;
    let mode = mode_of(broker, topic, group);
    // Without a nameserver's word nothing can be said of other brokers.
    let queues = queues_of(broker, topic).await?;
    let shared_out = broker.config.load().server_load_balancer;
    let queues = if request.message_model == MessageModel::Broadcasting || !shared_out {
        queues
    } else {
        let members = broker.clients.consumer_group(group)?.client_ids();
        let strategy = Strategy::named(&request.strategy_name)?;
        match mode.mode {
            MessageRequestMode::Pull => strategy.share(client_id, &queues, &members),
            MessageRequestMode::Pop => {
                share_for_pop(strategy, client_id, &queues, &members, mode.pop_share_queue_num)
            }
        }
    };
    let queues: BTreeSet<MessageQueue> = queues.into_iter().collect();
    let assignment = |queue| MessageQueueAssignment {
        attachments: None,
        message_queue: Some(queue),
        mode: mode.mode,
    };
    Some(queues.into_iter().map(assignment).collect())
}

fn mode_of(broker: &Broker, topic: &str, group: &str) -> SetMessageRequestModeRequestBody {
    if let Some(mode) = broker.modes.get(topic, group) {
        return mode;
    }
    let config = broker.config.load();
    // Retries are pulled whatever the default is.
    let pops = config.pop_by_default && name::retry_group(topic).is_none();
    SetMessageRequestModeRequestBody {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        mode: if pops { MessageRequestMode::Pop } else { MessageRequestMode::Pull },
        pop_share_queue_num: if pops { config.pop_share_queues } else { 0 },
    }
}

/// The queues that can be read of a topic on all brokers, in order; what this broker has, if it knows no
/// nameserver.
async fn queues_of(broker: &Broker, topic: &str) -> Option<Vec<MessageQueue>> {
    let config = broker.config.load_full();
    let mut queues = Vec::new();
    let mut add = |broker: &str, count: i32| {
        queues.extend((0..count).map(|queue_id| MessageQueue::new(topic, broker, queue_id)));
    };
    if config.nameservers.is_empty() {
        let own = broker.topics.get(topic)?;
        add(&config.name, own.config.read_queue_nums);
    } else {
        let route = route(broker, &config.nameservers, topic).await?;
        for data in route.queue_datas.iter().filter(|data| perm::may_read(data.perm)) {
            add(&data.broker_name, data.read_queue_nums.min(crate::topics::QUEUES_MAX));
        }
    }
    queues.sort();
    Some(queues)
}

async fn route(broker: &Broker, nameservers: &[String], topic: &str) -> Option<TopicRouteData> {
    for address in nameservers {
        let request =
            GetRouteInfo { topic: topic.to_owned(), accept_standard_json_only: Some(true) };
        match broker.pool.ask(address, &request, Vec::new(), ROUTE_TIMEOUT).await {
            Ok((_, reply)) => match json::read(&reply.body) {
                Ok(route) => return Some(route),
                Err(error) => debug!(topic, address, %error, "cannot read a route"),
            },
            Err(error) => debug!(topic, address, %error, "cannot learn where a topic is"),
        }
    }
    None
}

/// How queues are shared among the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Neighbouring queues to each member.
    Average,
    /// One queue to each member in turns.
    Circle,
}

impl Strategy {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "AVG" => Some(Self::Average),
            "AVG_BY_CIRCLE" => Some(Self::Circle),
            _ => None,
        }
    }

    /// What is the share of a member. Both lists are sorted.
    pub fn share(
        self,
        member: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Vec<MessageQueue> {
        let Some(index) = members.iter().position(|known| known == member) else {
            return Vec::new();
        };
        let step = members.len();
        match self {
            Self::Circle => queues.iter().skip(index).step_by(step).cloned().collect(),
            Self::Average => {
                // The first members get one more each until nothing is left over.
                let (each, over) = (queues.len() / step, queues.len() % step);
                let from = index * each + index.min(over);
                let count = each + usize::from(index < over);
                queues[from..from + count].to_vec()
            }
        }
    }
}

/// The share of a member that pops: all queues of each broker, or its own and those of the next members.
pub fn share_for_pop(
    strategy: Strategy,
    member: &str,
    queues: &[MessageQueue],
    members: &[String],
    share_queues: i32,
) -> Vec<MessageQueue> {
    let next = usize::try_from(share_queues).unwrap_or(0);
    if next == 0 || next + 1 >= members.len() {
        // Whoever pops queue −1 pops all of them.
        let all = |queue: &MessageQueue| MessageQueue { queue_id: -1, ..queue.clone() };
        return queues.iter().map(all).collect();
    }
    let Some(index) = members.iter().position(|known| known == member) else { return Vec::new() };
    if members.len() > queues.len() {
        let queue = (!queues.is_empty()).then(|| queues[index % queues.len()].clone());
        return queue.into_iter().collect();
    }
    let shared = (index..=index + next).map(|at| &members[at % members.len()]);
    shared.flat_map(|member| strategy.share(member, queues, members)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        (0..count).map(|queue_id| MessageQueue::new("t", "b", queue_id)).collect()
    }

    fn members(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("m{at}")).collect()
    }

    fn ids(queues: &[MessageQueue]) -> Vec<i32> {
        queues.iter().map(|queue| queue.queue_id).collect()
    }

    #[test]
    fn every_queue_goes_to_exactly_one_member_and_nobody_gets_two_more_than_another() {
        for strategy in [Strategy::Average, Strategy::Circle] {
            for (queue_count, member_count) in [(8, 3), (3, 8), (4, 4), (0, 2), (7, 1)] {
                let (queues, members) = (queues(queue_count), members(member_count));
                let shares: Vec<Vec<i32>> = members
                    .iter()
                    .map(|member| ids(&strategy.share(member, &queues, &members)))
                    .collect();
                let mut all = shares.concat();
                all.sort_unstable();
                assert_eq!(all, ids(&queues));
                let sizes = shares.iter().map(Vec::len);
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            }
        }
        let share = |strategy: Strategy| ids(&strategy.share("m0", &queues(8), &members(3)));
        assert_eq!(share(Strategy::Average), [0, 1, 2]);
        assert_eq!(share(Strategy::Circle), [0, 3, 6]);
        assert_eq!(Strategy::Average.share("x", &queues(8), &members(3)), []);
        assert_eq!(Strategy::named("CONSISTENT_HASH"), None);
    }

    #[test]
    fn who_pops_shares_all_queues_or_those_of_the_next_members() {
        let pop = |share: i32, members: &[String]| {
            ids(&share_for_pop(Strategy::Average, "m2", &queues(4), members, share))
        };
        for share in [-1, 0, 3, 4] {
            assert_eq!(pop(share, &members(4)), [-1; 4], "{share}");
        }
        assert_eq!(pop(1, &members(4)), [2, 3]);
        assert_eq!(pop(2, &members(4)), [2, 3, 0]);
        assert_eq!(pop(1, &members(6)), [2], "more members than queues");
    }
}
