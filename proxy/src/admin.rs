//! What operators ask for over gRPC. What is not served says so; a test names it.

#![allow(clippy::needless_update, reason = "some answers have nothing but a status")]

mod clients;
mod groups;
mod topics;

use std::sync::Arc;

use protocol::grpc::*;
use tonic::{Request, Response, Status as Refused};

use crate::front::Front;
use crate::grpc::status::Failure;
use crate::service::admin_server;

/// Serves [`admin_server::Admin`].
#[derive(Debug, Clone)]
pub struct Admin(pub Arc<Front>);

type Answer<T> = Result<Response<T>, Refused>;

/// Puts what went wrong into the answer's status.
macro_rules! answered {
    ($reply:ident, $outcome:expr) => {
        Ok(Response::new($outcome.unwrap_or_else(|failure: Failure| $reply {
            status: Some(failure.status()),
            ..$reply::default()
        })))
    };
}

fn unserved<T>(what: &str) -> Answer<T> {
    Err(Refused::unimplemented(format!("{what} is not served")))
}

#[tonic::async_trait]
impl admin_server::Admin for Admin {
    async fn change_log_level(
        &self,
        request: Request<ChangeLogLevelRequest>,
    ) -> Answer<ChangeLogLevelResponse> {
        let level = request.into_inner().level();
        let Some(change) = self.0.config.change_log_level else {
            return unserved("ChangeLogLevel");
        };
        let level = level.as_str_name();
        match change(level) {
            Ok(()) => {
                let remark = format!("the level of the log is {level}");
                Ok(Response::new(ChangeLogLevelResponse { remark }))
            }
            Err(reason) => Err(Refused::internal(reason)),
        }
    }

    async fn describe_topic_status(
        &self,
        request: Request<DescribeTopicStatusRequest>,
    ) -> Answer<DescribeTopicStatusResponse> {
        let outcome = topics::describe(&self.0, request.into_inner()).await;
        answered!(DescribeTopicStatusResponse, outcome)
    }

    async fn list_subscription(
        &self,
        request: Request<ListSubscriptionRequest>,
    ) -> Answer<ListSubscriptionResponse> {
        Ok(Response::new(clients::subscriptions(&self.0, &request.into_inner())))
    }

    async fn describe_subscription(
        &self,
        request: Request<DescribeSubscriptionRequest>,
    ) -> Answer<DescribeSubscriptionResponse> {
        Ok(Response::new(clients::describe_subscription(&self.0, &request.into_inner())))
    }

    async fn delete_subscription(
        &self,
        _: Request<DeleteSubscriptionRequest>,
    ) -> Answer<DeleteSubscriptionResponse> {
        unserved("DeleteSubscription")
    }

    async fn describe_group_accumulation(
        &self,
        request: Request<DescribeGroupAccumulationRequest>,
    ) -> Answer<DescribeGroupAccumulationResponse> {
        let outcome = groups::accumulation(&self.0, request.into_inner()).await;
        answered!(DescribeGroupAccumulationResponse, outcome)
    }

    async fn list_consumer_connection(
        &self,
        request: Request<ListConsumerConnectionRequest>,
    ) -> Answer<ListConsumerConnectionResponse> {
        let outcome = clients::connections(&self.0, request.into_inner()).await;
        answered!(ListConsumerConnectionResponse, outcome)
    }

    async fn reset_group_offset(
        &self,
        request: Request<ResetGroupOffsetRequest>,
    ) -> Answer<ResetGroupOffsetResponse> {
        let outcome = groups::reset(&self.0, request.into_inner()).await;
        answered!(ResetGroupOffsetResponse, outcome)
    }

    async fn query_message(
        &self,
        request: Request<ListMessageRequest>,
    ) -> Answer<ListMessageResponse> {
        let outcome = topics::messages(&self.0, request.into_inner()).await;
        answered!(ListMessageResponse, outcome)
    }

    async fn print_thread_stack_trace(
        &self,
        request: Request<PrintThreadStackTraceRequest>,
    ) -> Answer<PrintThreadStackTraceResponse> {
        let outcome = clients::stack_trace(&self.0, request.into_inner()).await;
        answered!(PrintThreadStackTraceResponse, outcome)
    }

    async fn verify_message(
        &self,
        request: Request<VerifyMessageRequest>,
    ) -> Answer<VerifyMessageResponse> {
        let outcome = clients::verify(&self.0, request.into_inner()).await;
        answered!(VerifyMessageResponse, outcome)
    }

    async fn admin_send_message(
        &self,
        _: Request<AdminSendMessageRequest>,
    ) -> Answer<AdminSendMessageResponse> {
        unserved("AdminSendMessage")
    }

    async fn get_consumer_running_info(
        &self,
        _: Request<GetConsumerRunningInfoRequest>,
    ) -> Answer<GetConsumerRunningInfoResponse> {
        unserved("GetConsumerRunningInfo")
    }

    async fn get_topic_route(
        &self,
        request: Request<GetTopicRouteRequest>,
    ) -> Answer<GetTopicRouteResponse> {
        let outcome = topics::route(&self.0, request.into_inner()).await;
        answered!(GetTopicRouteResponse, outcome)
    }

    async fn query_time_span(
        &self,
        request: Request<QueryTimeSpanRequest>,
    ) -> Answer<QueryTimeSpanResponse> {
        let outcome = groups::time_span(&self.0, request.into_inner()).await;
        answered!(QueryTimeSpanResponse, outcome)
    }

    async fn get_proxy_runtime_stats(
        &self,
        _: Request<GetProxyRuntimeStatsRequest>,
    ) -> Answer<GetProxyRuntimeStatsResponse> {
        Ok(Response::new(clients::runtime_stats(&self.0)))
    }
}
