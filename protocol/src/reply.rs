//! The table of reply codes, and [`Refusal`]: a code with a sentence.

use std::borrow::Cow;

macro_rules! reply_codes {
    ($($code:literal $name:ident;)*) => {
        /// How a request ended, as the client sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ReplyCode {
            $(#[doc = concat!("Code ", $code, ".")] $name,)*
        }

        impl ReplyCode {
            /// Every known code, in table order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Reads a code from the wire; `None` when we do not know it.
            pub const fn from_wire(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The number on the wire.
            pub const fn to_wire(self) -> i32 {
                match self { $(Self::$name => $code),* }
            }
        }
    };
}

reply_codes! {
    -1006  RpcTimeOut;
    -1004  RpcSendToChannelFailed;
    -1002  RpcAddrIsNull;
    -1000  RpcUnknown;
    0      Success;
    1      SystemError;
    2      SystemBusy;
    3      RequestCodeNotSupported;
    4      TransactionFailed;
    10     FlushDiskTimeout;
    11     SlaveNotAvailable;
    12     FlushSlaveTimeout;
    13     MessageIllegal;
    14     ServiceNotAvailable;
    15     VersionNotSupported;
    16     NoPermission;
    17     TopicNotExist;
    18     TopicExistAlready;
    19     PullNotFound;
    20     PullRetryImmediately;
    21     PullOffsetMoved;
    22     QueryNotFound;
    23     SubscriptionParseFailed;
    24     SubscriptionNotExist;
    25     SubscriptionNotLatest;
    26     SubscriptionGroupNotExist;
    27     FilterDataNotExist;
    28     FilterDataNotLatest;
    29     InvalidParameter;
    200    TransactionShouldCommit;
    201    TransactionShouldRollback;
    202    TransactionStateUnknow;
    203    TransactionStateGroupWrong;
    204    NoBuyerId;
    205    NotInCurrentUnit;
    206    ConsumerNotOnline;
    207    ConsumeMsgTimeout;
    208    NoMessage;
    209    PollingFull;
    210    PollingTimeout;
    211    BrokerNotExist;
    212    BrokerDispatchNotComplete;
    213    BroadcastConsumption;
    215    FlowControl;
    501    NotLeaderForQueue;
    604    IllegalOperation;
    1500   GoAway;
    2000   ControllerFencedMasterEpoch;
    2001   ControllerFencedSyncStateSetEpoch;
    2002   ControllerInvalidMaster;
    2003   ControllerInvalidReplicas;
    2004   ControllerMasterNotAvailable;
    2005   ControllerInvalidRequest;
    2006   ControllerBrokerNotAlive;
    2007   ControllerNotLeader;
    2008   ControllerBrokerMetadataNotExist;
    2009   ControllerInvalidCleanBrokerMetadata;
    2010   ControllerBrokerNeedToBeRegistered;
    2011   ControllerMasterStillExist;
    2012   ControllerElectMasterFailed;
    2013   ControllerAlterSyncStateSetFailed;
    2014   ControllerBrokerIdInvalid;
    2015   ControllerJraftInternalError;
    2016   ControllerBrokerLiveInfoNotExists;
    2017   LmqQuotaExceeded;
    2018   LiteSubscriptionQuotaExceeded;
    3001   UserNotExist;
    3002   PolicyNotExist;
}

/// Why a request was not served: what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {remark}")]
pub struct Refusal {
    pub code: ReplyCode,
    pub remark: Cow<'static, str>,
}

impl Refusal {
    pub fn new(code: ReplyCode, remark: impl Into<Cow<'static, str>>) -> Self {
        Self { code, remark: remark.into() }
    }

    /// The answer to a request nobody serves, in the words clients know.
    pub fn unsupported(code: i32) -> Self {
        let remark = format!(" request type {code} not supported");
        Self::new(ReplyCode::RequestCodeNotSupported, remark)
    }
}

impl From<crate::fields::FieldError> for Refusal {
    fn from(error: crate::fields::FieldError) -> Self {
        Self::new(ReplyCode::SystemError, error.to_string())
    }
}
