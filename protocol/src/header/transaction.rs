//! End and check of half messages.

use crate::header;

header! {
    pub struct CheckTransactionState {
        pub topic: Option<String>,
        pub tran_state_table_offset: i64,
        pub commit_log_offset: i64,
        pub msg_id: Option<String>,
        pub transaction_id: Option<String>,
        pub offset_msg_id: Option<String>,
    }
}

header! {
    pub struct CheckTransactionStateReply {
        pub producer_group: String,
        pub tran_state_table_offset: i64,
        pub commit_log_offset: i64,
        pub commit_or_rollback: i32,
    }
}

header! {
    pub struct EndTransaction {
        pub topic: Option<String>,
        pub producer_group: String,
        pub tran_state_table_offset: i64,
        pub commit_log_offset: i64,
        pub commit_or_rollback: i32,
        pub from_transaction_check: Option<bool>,
        pub msg_id: String,
        pub transaction_id: Option<String>,
    }
}

header! {
    pub struct ResumeCheckHalfMessage {
        pub topic: Option<String>,
        pub msg_id: Option<String>,
    }
}
