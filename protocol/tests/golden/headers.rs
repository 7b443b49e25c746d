//! Every request and every answer reads as the header its code names, which says all of it again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::fields::{Fields, Header};
use protocol::header::send::{Send, SendMessageReply};
use protocol::header::{
    Empty, Routing, client::*, group::*, offset::*, pull::*, query::*, route::*, send::*, stats::*,
    topic::*, transaction::*,
};
use protocol::request::{Request, RequestCode};

use crate::each;

/// Fields that belong to no header of stock's; the code that needs one sets or reads it by name.
const OF_NO_HEADER: [&str; 6] = [
    // Of answers to sends, refusals too: the broker's region, and whether messages are traced.
    "MSG_REGION",
    "TRACE_ON",
    // Of answers to heartbeats.
    "IS_SUB_CHANGE",
    "IS_SUPPORT_HEART_BEAT_V2",
    // Of what a consumer does for a client of a proxy, and of the order that comes with it.
    "ReqT",
    // Of queries: the key is the id that the client gave the message.
    "_UNIQUE_KEY_QUERY",
];

/// A field that 4.9.8 does not know and that ours write with its default.
const ADDED: [(&str, &str); 1] = [("get_max_offset.request.v4", "committed")];

type Pairs = BTreeMap<String, String>;

/// What the headers of one request and its answer say again of some fields.
struct Row {
    code: RequestCode,
    request: fn(&Fields<'_>) -> Pairs,
    answer: fn(&Fields<'_>) -> Pairs,
}

fn pairs(fields: &Fields<'_>) -> Pairs {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs: Pairs = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
    assert_eq!(pairs.len(), fields.len(), "a name comes twice");
    pairs
}

fn again<T: for<'f> Header<'f>>(fields: &Fields<'_>) -> Pairs {
    pairs(&Fields::of(&fields.read::<T>().unwrap()))
}

fn letters(fields: &Fields<'_>) -> Pairs {
    let mut written = Fields::default();
    fields.read::<Send<'_>>().unwrap().write_letters(&mut written);
    pairs(&written)
}

fn long_names(fields: &Fields<'_>) -> Pairs {
    pairs(&Fields::of(&fields.read::<Send<'_>>().unwrap()))
}

fn row<T: Request>() -> Row {
    shared::<T>(T::CODE)
}

/// The row of a request that travels under another's header.
fn shared<T: Request>(code: RequestCode) -> Row {
    Row { code, request: again::<T>, answer: again::<T::Reply> }
}

macro_rules! rows {
    ($($header:ident),* $(,)?) => { [$(row::<$header>()),*] };
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = rows! {
        PullMessage, QueryMessage, QueryConsumerOffset, UpdateConsumerOffset, CreateTopic,
        GetAllTopicConfig, SearchOffset, GetMaxOffset, GetMinOffset, GetEarliestMsgStoretime,
        ViewMessage, UnregisterClient, ConsumerSendMsgBack, EndTransaction,
        GetConsumerListByGroup, CheckTransactionState, NotifyConsumerIdsChanged, PutKvConfig,
        GetKvConfig, DeleteKvConfig, RegisterBroker, UnregisterBroker, GetRouteInfo,
        GetAllSubscriptionGroup, GetTopicStatsInfo, GetConsumerConnectionList,
        GetProducerConnectionList, WipeWritePermOfBroker, DeleteSubscriptionGroup,
        GetConsumeStats, DeleteTopic, DeleteTopicFromNamesrv, RegisterTopic,
        GetKvListByNamespace, ResetOffset, GetConsumerStatus, GetTopicsByCluster,
        QueryTopicConsumeByWho, QueryConsumeTimeSpan, GetConsumerRunningInfo,
        QueryCorrectionOffset, ConsumeMessageDirectly, CloneGroupOffset, ViewBrokerStatsData,
        GetConsumeStatsInBroker, QueryConsumeQueue, QueryDataVersion, ReplyMessage,
        AddWritePermOfBroker, QueryTopicsByConsumer, QuerySubscriptionByConsumer,
        GetTopicConfig, GetSubscriptionGroupConfig, UpdateGroupForbidden, GetBrokerMemberGroup,
        BrokerHeartbeat, NotifyMinBrokerIdChange,
    }
    .into();
    rows.extend([
        shared::<PullMessage>(RequestCode::LitePullMessage),
        shared::<ResetOffset>(RequestCode::InvokeBrokerToResetOffset),
        shared::<GetConsumerStatus>(RequestCode::InvokeBrokerToGetConsumerStatus),
    ]);
    for (code, request) in [
        (RequestCode::SendMessage, long_names as fn(&Fields<'_>) -> Pairs),
        (RequestCode::SendMessageV2, letters),
        (RequestCode::SendBatchMessage, letters),
        (RequestCode::SendReplyMessage, long_names),
        (RequestCode::SendReplyMessageV2, letters),
    ] {
        rows.push(Row { code, request, answer: again::<SendMessageReply> });
    }
    rows.push(Row {
        code: RequestCode::GetBrokerConfig,
        request: again::<Empty>,
        answer: again::<GetBrokerConfigReply>,
    });
    rows
}

/// Whether an answer carries what was asked for, or word that there is nothing of it.
fn is_outcome(request: i32, answer: i32) -> bool {
    match request {
        11 | 361 => matches!(answer, 0 | 19..=21),
        12 => matches!(answer, 0 | 22),
        _ => answer == 0,
    }
}

#[test]
fn every_header_says_again_what_was_sent() {
    let rows: BTreeMap<i32, Row> =
        rows().into_iter().map(|row| (row.code.to_wire(), row)).collect();
    let mut seen = BTreeSet::new();
    each(|golden, command, code| {
        let row = rows.get(&code);
        let mut written = match row {
            // A refusal says nothing but its remark.
            _ if command.is_reply() && !is_outcome(code, command.code) => Pairs::new(),
            Some(row) if command.is_reply() => (row.answer)(&command.fields),
            Some(row) => (row.request)(&command.fields),
            None => again::<Empty>(&command.fields),
        };
        for (name, field) in ADDED.iter().filter(|(name, _)| *name == golden.name) {
            assert!(written.remove(*field).is_some(), "{name}");
        }
        written.extend(again::<Routing>(&command.fields));
        let mut sent = pairs(&command.fields);
        for name in OF_NO_HEADER {
            if sent.remove(name).is_some() {
                seen.insert(name);
            }
        }
        assert_eq!(written, sent, "{} ({code})", golden.name);
    });
    assert_eq!(seen, BTreeSet::from(OF_NO_HEADER));
}

#[test]
fn every_header_named_here_has_frames() {
    let mut without: BTreeSet<i32> = rows().iter().map(|row| row.code.to_wire()).collect();
    each(|_, _, code| {
        without.remove(&code);
    });
    assert_eq!(without, BTreeSet::new());
}
