//! The table of requests: every code, what it carries, what answers it, who serves it.

use crate::fields::Header;
use crate::header::{
    Empty, auth::*, client::*, controller::*, group::*, lite::*, offset::*, pop::*, pull::*,
    query::*, replication::*, route::*, send::*, stats::*, topic::*, transaction::*,
};

/// A header that is sent under one request code.
pub trait Request: for<'f> Header<'f> {
    const CODE: RequestCode;
    type Reply: for<'f> Header<'f>;
}

/// The process that answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    NameServer,
    Controller,
    Broker,
    Client,
}

macro_rules! requests {
    ($($code:literal $name:ident: $header:tt => $reply:ident, $server:ident;)*) => {
        /// What a command asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RequestCode {
            $(#[doc = concat!("Code ", $code, ".")] $name,)*
        }

        impl RequestCode {
            /// Every known request, in table order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Reads a code from the wire; `None` when we do not know it.
            pub const fn from_wire(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The number on the wire.
            pub const fn to_wire(self) -> i32 {
                match self { $(Self::$name => $code),* }
            }

            /// The process that answers it.
            pub const fn server(self) -> Server {
                match self { $(Self::$name => Server::$server),* }
            }
        }

        $(impl_request!($name, $header, $reply);)*
    };
}

/// `Empty` says nothing of its own, and a header in brackets is the header of another row.
macro_rules! impl_request {
    ($name:ident, Empty, $reply:ident) => {};
    ($name:ident, [$shared:ident], $reply:ident) => {};
    ($name:ident, $header:ident, $reply:ident) => {
        impl Request for $header {
            const CODE: RequestCode = RequestCode::$name;
            type Reply = $reply;
        }
    };
}

#[rustfmt::skip]
requests! {
    // code name                               header                              reply                      served by
    10      SendMessage:                       Empty                            => SendMessageReply,          Broker;
    11      PullMessage:                       PullMessage                      => PullMessageReply,          Broker;
    12      QueryMessage:                      QueryMessage                     => QueryMessageReply,         Broker;
    13      QueryBrokerOffset:                 Empty                            => Empty,                     Broker;
    14      QueryConsumerOffset:               QueryConsumerOffset              => QueryConsumerOffsetReply,  Broker;
    15      UpdateConsumerOffset:              UpdateConsumerOffset             => Empty,                     Broker;
    17      UpdateTopic:                       CreateTopic                      => Empty,                     Broker;
    18      UpdateTopicList:                   Empty                            => Empty,                     Broker;
    21      GetAllTopicConfig:                 GetAllTopicConfig                => GetAllTopicConfigReply,    Broker;
    22      GetTopicConfigList:                Empty                            => Empty,                     Broker;
    23      GetTopicNameList:                  Empty                            => Empty,                     Broker;
    25      UpdateBrokerConfig:                Empty                            => Empty,                     Broker;
    26      GetBrokerConfig:                   Empty                            => GetBrokerConfigReply,      Broker;
    27      TriggerDeleteFiles:                Empty                            => Empty,                     Broker;
    28      GetBrokerRuntimeInfo:              Empty                            => Empty,                     Broker;
    29      SearchOffsetByTimestamp:           SearchOffset                     => SearchOffsetReply,         Broker;
    30      GetMaxOffset:                      GetMaxOffset                     => GetMaxOffsetReply,         Broker;
    31      GetMinOffset:                      GetMinOffset                     => GetMinOffsetReply,         Broker;
    32      GetEarliestMsgStoretime:           GetEarliestMsgStoretime          => GetEarliestMsgStoretimeReply, Broker;
    33      ViewMessageById:                   ViewMessage                      => Empty,                     Broker;
    34      Heartbeat:                         Empty                            => Empty,                     Broker;
    35      UnregisterClient:                  UnregisterClient                 => Empty,                     Broker;
    36      ConsumerSendMsgBack:               ConsumerSendMsgBack              => Empty,                     Broker;
    37      EndTransaction:                    EndTransaction                   => Empty,                     Broker;
    38      GetConsumerListByGroup:            GetConsumerListByGroup           => Empty,                     Broker;
    39      CheckTransactionState:             CheckTransactionState            => CheckTransactionStateReply, Client;
    40      NotifyConsumerIdsChanged:          NotifyConsumerIdsChanged         => Empty,                     Client;
    41      LockBatchMq:                       Empty                            => Empty,                     Broker;
    42      UnlockBatchMq:                     Empty                            => Empty,                     Broker;
    43      GetAllConsumerOffset:              Empty                            => Empty,                     Broker;
    45      GetAllDelayOffset:                 Empty                            => Empty,                     Broker;
    46      CheckClientConfig:                 Empty                            => Empty,                     Broker;
    47      GetClientConfig:                   Empty                            => Empty,                     Broker;
    60      GetTimerCheckPoint:                Empty                            => Empty,                     Broker;
    61      GetTimerMetrics:                   Empty                            => Empty,                     Broker;
    100     PutKvConfig:                       PutKvConfig                      => Empty,                     NameServer;
    101     GetKvConfig:                       GetKvConfig                      => GetKvConfigReply,          NameServer;
    102     DeleteKvConfig:                    DeleteKvConfig                   => Empty,                     NameServer;
    103     RegisterBroker:                    RegisterBroker                   => RegisterBrokerReply,       NameServer;
    104     UnregisterBroker:                  UnregisterBroker                 => Empty,                     NameServer;
    105     GetRouteInfo:                      GetRouteInfo                     => Empty,                     NameServer;
    106     GetBrokerClusterInfo:              Empty                            => Empty,                     NameServer;
    200     UpdateSubscriptionGroup:           Empty                            => Empty,                     Broker;
    201     GetAllSubscriptionGroupConfig:     GetAllSubscriptionGroup          => GetAllSubscriptionGroupReply, Broker;
    202     GetTopicStatsInfo:                 GetTopicStatsInfo                => Empty,                     Broker;
    203     GetConsumerConnectionList:         GetConsumerConnectionList        => Empty,                     Broker;
    204     GetProducerConnectionList:         GetProducerConnectionList        => Empty,                     Broker;
    205     WipeWritePermOfBroker:             WipeWritePermOfBroker            => WipeWritePermOfBrokerReply, NameServer;
    206     GetAllTopicList:                   Empty                            => Empty,                     NameServer;
    207     DeleteSubscriptionGroup:           DeleteSubscriptionGroup          => Empty,                     Broker;
    208     GetConsumeStats:                   GetConsumeStats                  => Empty,                     Broker;
    209     SuspendConsumer:                   Empty                            => Empty,                     Broker;
    210     ResumeConsumer:                    Empty                            => Empty,                     Broker;
    211     ResetConsumerOffsetInConsumer:     Empty                            => Empty,                     Broker;
    212     ResetConsumerOffsetInBroker:       Empty                            => Empty,                     Broker;
    213     AdjustConsumerThreadPool:          Empty                            => Empty,                     Broker;
    214     WhoConsumeTheMessage:              Empty                            => Empty,                     Broker;
    215     DeleteTopicInBroker:               DeleteTopic                      => Empty,                     Broker;
    216     DeleteTopicInNamesrv:              DeleteTopicFromNamesrv           => Empty,                     NameServer;
    217     RegisterTopicInNamesrv:            RegisterTopic                    => Empty,                     NameServer;
    219     GetKvListByNamespace:              GetKvListByNamespace             => Empty,                     NameServer;
    220     ResetConsumerClientOffset:         ResetOffset                      => Empty,                     Client;
    221     GetConsumerStatusFromClient:       GetConsumerStatus                => Empty,                     Client;
    222     InvokeBrokerToResetOffset:         [ResetOffset]                    => Empty,                     Broker;
    223     InvokeBrokerToGetConsumerStatus:   [GetConsumerStatus]              => Empty,                     Broker;
    224     GetTopicsByCluster:                GetTopicsByCluster               => Empty,                     NameServer;
    225     UpdateSubscriptionGroupList:       Empty                            => Empty,                     Broker;
    300     QueryTopicConsumeByWho:            QueryTopicConsumeByWho           => Empty,                     Broker;
    301     RegisterFilterServer:              Empty                            => Empty,                     Broker;
    302     RegisterMessageFilterClass:        Empty                            => Empty,                     Broker;
    303     QueryConsumeTimeSpan:              QueryConsumeTimeSpan             => Empty,                     Broker;
    304     GetSystemTopicListFromNs:          Empty                            => Empty,                     NameServer;
    305     GetSystemTopicListFromBroker:      Empty                            => Empty,                     Broker;
    306     CleanExpiredConsumeQueue:          Empty                            => Empty,                     Broker;
    307     GetConsumerRunningInfo:            GetConsumerRunningInfo           => Empty,                     Broker;
    308     QueryCorrectionOffset:             QueryCorrectionOffset            => Empty,                     Broker;
    309     ConsumeMessageDirectly:            ConsumeMessageDirectly           => Empty,                     Broker;
    310     SendMessageV2:                     Empty                            => SendMessageReply,          Broker;
    311     GetUnitTopicList:                  Empty                            => Empty,                     NameServer;
    312     GetHasUnitSubTopicList:            Empty                            => Empty,                     NameServer;
    313     GetHasUnitSubUnunitTopicList:      Empty                            => Empty,                     NameServer;
    314     CloneGroupOffset:                  CloneGroupOffset                 => Empty,                     Broker;
    315     ViewBrokerStatsData:               ViewBrokerStatsData              => Empty,                     Broker;
    316     CleanUnusedTopic:                  Empty                            => Empty,                     Broker;
    317     GetBrokerConsumeStats:             GetConsumeStatsInBroker          => Empty,                     Broker;
    318     UpdateNamesrvConfig:               Empty                            => Empty,                     NameServer;
    319     GetNamesrvConfig:                  Empty                            => Empty,                     NameServer;
    320     SendBatchMessage:                  Empty                            => SendMessageReply,          Broker;
    321     QueryConsumeQueue:                 QueryConsumeQueue                => Empty,                     Broker;
    322     QueryDataVersion:                  QueryDataVersion                 => QueryDataVersionReply,     NameServer;
    323     ResumeCheckHalfMessage:            ResumeCheckHalfMessage           => Empty,                     Broker;
    324     SendReplyMessage:                  Empty                            => SendMessageReply,          Broker;
    325     SendReplyMessageV2:                Empty                            => SendMessageReply,          Broker;
    326     PushReplyMessageToClient:          ReplyMessage                     => Empty,                     Client;
    327     AddWritePermOfBroker:              AddWritePermOfBroker             => AddWritePermOfBrokerReply, NameServer;
    328     GetAllProducerInfo:                Empty                            => Empty,                     Broker;
    329     DeleteExpiredCommitLog:            Empty                            => Empty,                     Broker;
    343     QueryTopicsByConsumer:             QueryTopicsByConsumer            => Empty,                     Broker;
    345     QuerySubscriptionByConsumer:       QuerySubscriptionByConsumer      => Empty,                     Broker;
    351     GetTopicConfig:                    GetTopicConfig                   => Empty,                     Broker;
    352     GetSubscriptionGroupConfig:        GetSubscriptionGroupConfig       => Empty,                     Broker;
    353     UpdateAndGetGroupForbidden:        UpdateGroupForbidden             => Empty,                     Broker;
    354     CheckRocksdbCqWriteProgress:       CheckRocksdbCqWriteProgress      => Empty,                     Broker;
    355     ExportRocksdbConfigToJson:         ExportRocksdbConfigToJson        => Empty,                     Broker;
    361     LitePullMessage:                   [PullMessage]                    => PullMessageReply,          Broker;
    370     RecallMessage:                     RecallMessage                    => RecallMessageReply,        Broker;
    400     QueryAssignment:                   Empty                            => Empty,                     Broker;
    401     SetMessageRequestMode:             Empty                            => Empty,                     Broker;
    402     GetAllMessageRequestMode:          Empty                            => Empty,                     Broker;
    513     UpdateStaticTopic:                 Empty                            => Empty,                     Broker;
    901     GetBrokerMemberGroup:              GetBrokerMemberGroup             => Empty,                     NameServer;
    902     AddBroker:                         AddBroker                        => Empty,                     Broker;
    903     RemoveBroker:                      RemoveBroker                     => Empty,                     Broker;
    904     BrokerHeartbeat:                   BrokerHeartbeat                  => Empty,                     NameServer;
    905     NotifyMinBrokerIdChange:           NotifyMinBrokerIdChange          => Empty,                     Broker;
    906     ExchangeBrokerHaInfo:              ExchangeHaInfo                   => ExchangeHaInfoReply,       Broker;
    907     GetBrokerHaStatus:                 Empty                            => Empty,                     Broker;
    908     ResetMasterFlushOffset:            ResetMasterFlushOffset           => Empty,                     Broker;
    1001    ControllerAlterSyncStateSet:       AlterSyncStateSet                => AlterSyncStateSetReply,    Controller;
    1002    ControllerElectMaster:             ElectMaster                      => ElectMasterReply,          Controller;
    1003    ControllerRegisterBroker:          RegisterBrokerToController       => RegisterBrokerToControllerReply, Controller;
    1004    ControllerGetReplicaInfo:          GetReplicaInfo                   => GetReplicaInfoReply,       Controller;
    1005    ControllerGetMetadataInfo:         Empty                            => Empty,                     Controller;
    1006    ControllerGetSyncStateData:        Empty                            => Empty,                     Controller;
    1007    GetBrokerEpochCache:               Empty                            => Empty,                     Broker;
    1008    NotifyBrokerRoleChanged:           NotifyBrokerRoleChanged          => Empty,                     Broker;
    1009    UpdateControllerConfig:            Empty                            => Empty,                     Controller;
    1010    GetControllerConfig:               Empty                            => Empty,                     Controller;
    1011    CleanBrokerData:                   CleanControllerBrokerData        => Empty,                     Controller;
    1012    ControllerGetNextBrokerId:         GetNextBrokerId                  => GetNextBrokerIdReply,      Controller;
    1013    ControllerApplyBrokerId:           ApplyBrokerId                    => ApplyBrokerIdReply,        Controller;
    1014    BrokerCloseChannelRequest:         Empty                            => Empty,                     Controller;
    1015    CheckNotActiveBrokerRequest:       Empty                            => Empty,                     Controller;
    1016    GetBrokerLiveInfoRequest:          Empty                            => Empty,                     Controller;
    1017    GetSyncStateDataRequest:           Empty                            => Empty,                     Controller;
    1018    RaftBrokerHeartBeatEventRequest:   Empty                            => Empty,                     Controller;
    2001    UpdateColdDataFlowCtrConfig:       Empty                            => Empty,                     Broker;
    2002    RemoveColdDataFlowCtrConfig:       Empty                            => Empty,                     Broker;
    2003    GetColdDataFlowCtrInfo:            Empty                            => Empty,                     Broker;
    2004    SetCommitLogReadMode:              Empty                            => Empty,                     Broker;
    3001    AuthCreateUser:                    CreateUser                       => Empty,                     Broker;
    3002    AuthUpdateUser:                    UpdateUser                       => Empty,                     Broker;
    3003    AuthDeleteUser:                    DeleteUser                       => Empty,                     Broker;
    3004    AuthGetUser:                       GetUser                          => Empty,                     Broker;
    3005    AuthListUser:                      ListUsers                        => Empty,                     Broker;
    3006    AuthCreateAcl:                     CreateAcl                        => Empty,                     Broker;
    3007    AuthUpdateAcl:                     UpdateAcl                        => Empty,                     Broker;
    3008    AuthDeleteAcl:                     DeleteAcl                        => Empty,                     Broker;
    3009    AuthGetAcl:                        GetAcl                           => Empty,                     Broker;
    3010    AuthListAcl:                       ListAcls                         => Empty,                     Broker;
    5001    SwitchTimerEngine:                 Empty                            => Empty,                     Broker;
    200050  PopMessage:                        PopMessage                       => PopMessageReply,           Broker;
    200051  AckMessage:                        AckMessage                       => Empty,                     Broker;
    200052  PeekMessage:                       PeekMessage                      => Empty,                     Broker;
    200053  ChangeInvisibleTime:               ChangeInvisibleTime              => ChangeInvisibleTimeReply,  Broker;
    200054  Notification:                      Notification                     => NotificationReply,         Broker;
    200055  PollingInfo:                       PollingInfo                      => PollingInfoReply,          Broker;
    200056  PopRollback:                       Empty                            => Empty,                     Broker;
    200070  PopLiteMessage:                    Empty                            => Empty,                     Broker;
    200071  LiteSubscriptionCtl:               Empty                            => Empty,                     Broker;
    200072  AckLiteMessage:                    Empty                            => Empty,                     Broker;
    200073  NotifyUnsubscribeLite:             NotifyUnsubscribeLite            => Empty,                     Client;
    200074  GetBrokerLiteInfo:                 Empty                            => Empty,                     Broker;
    200075  GetParentTopicInfo:                Empty                            => Empty,                     Broker;
    200076  GetLiteTopicInfo:                  Empty                            => Empty,                     Broker;
    200077  GetLiteClientInfo:                 Empty                            => Empty,                     Broker;
    200078  GetLiteGroupInfo:                  Empty                            => Empty,                     Broker;
    200079  TriggerLiteDispatch:               Empty                            => Empty,                     Broker;
    200151  BatchAckMessage:                   Empty                            => Empty,                     Broker;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_as_itself() {
        for &code in RequestCode::ALL {
            assert_eq!(RequestCode::from_wire(code.to_wire()), Some(code));
        }
    }
}
