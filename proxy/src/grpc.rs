//! The service of the gRPC protocol: what is asked, and which file answers it.

pub mod check;
pub mod context;
pub mod status;
pub mod time;

mod ack_message;
mod change_invisible_duration;
pub(crate) mod end_transaction;
mod forward_to_dead_letters;
mod heartbeat;
mod notify_client_termination;
mod offsets;
mod pull_message;
mod query_assignment;
pub mod query_route;
mod recall_message;
mod receive_message;
mod send_message;
mod settings;
mod telemetry;

use std::pin::Pin;
use std::sync::Arc;

use protocol::grpc::*;
use tokio_stream::Stream;
use tonic::{Request, Response, Streaming};

use crate::front::Front;
use crate::service::messaging_service_server::MessagingService;
use context::Context;
use status::{Failure, ok};

/// Serves [`MessagingService`].
#[derive(Debug, Clone)]
pub struct Messaging(pub Arc<Front>);

type Answer<T> = Result<Response<T>, tonic::Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

/// An answer that says what went wrong, if something did.
trait Reply: Default {
    fn failed(status: Status) -> Self;
}

macro_rules! replies {
    ($($reply:ident)*) => {$(
        impl Reply for $reply {
            #[allow(clippy::needless_update, reason = "some answers have nothing but a status")]
            fn failed(status: Status) -> Self {
                Self { status: Some(status), ..Self::default() }
            }
        }
    )*};
}

replies! {
    QueryRouteResponse HeartbeatResponse SendMessageResponse QueryAssignmentResponse AckMessageResponse
    ForwardMessageToDeadLetterQueueResponse UpdateOffsetResponse GetOffsetResponse QueryOffsetResponse
    EndTransactionResponse NotifyClientTerminationResponse ChangeInvisibleDurationResponse
    RecallMessageResponse
}

/// One request, one answer; what goes wrong stands in the answer's status.
async fn unary<Q, A: Reply>(
    request: Request<Q>,
    handle: impl AsyncFnOnce(&Context, Q) -> Result<A, Failure>,
) -> Answer<A> {
    let (metadata, extensions, message) = request.into_parts();
    let outcome = match Context::read(&metadata, &extensions) {
        Ok(context) => handle(&context, message).await,
        Err(failure) => Err(failure),
    };
    Ok(Response::new(outcome.unwrap_or_else(|failure| A::failed(failure.status()))))
}

#[tonic::async_trait]
impl MessagingService for Messaging {
    async fn query_route(&self, request: Request<QueryRouteRequest>) -> Answer<QueryRouteResponse> {
        unary(request, async |context, message| {
            query_route::query_route(&self.0, context, message).await
        })
        .await
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Answer<HeartbeatResponse> {
        unary(request, async |context, message| {
            heartbeat::heartbeat(&self.0, context, message).await
        })
        .await
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Answer<SendMessageResponse> {
        unary(request, async |context, message| {
            send_message::send_message(&self.0, context, message).await
        })
        .await
    }

    async fn query_assignment(
        &self,
        request: Request<QueryAssignmentRequest>,
    ) -> Answer<QueryAssignmentResponse> {
        unary(request, async |context, message| {
            query_assignment::query_assignment(&self.0, context, message).await
        })
        .await
    }

    type ReceiveMessageStream = Answers<ReceiveMessageResponse>;

    async fn receive_message(
        &self,
        request: Request<ReceiveMessageRequest>,
    ) -> Answer<Self::ReceiveMessageStream> {
        let (metadata, extensions, message) = request.into_parts();
        let answers = match Context::read(&metadata, &extensions) {
            Ok(context) => receive_message::receive_message(&self.0, &context, message).await,
            Err(failure) => receive_message::failed(failure),
        };
        Ok(Response::new(Box::pin(answers)))
    }

    async fn ack_message(&self, request: Request<AckMessageRequest>) -> Answer<AckMessageResponse> {
        unary(request, async |context, message| {
            ack_message::ack_message(&self.0, context, message).await
        })
        .await
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<ForwardMessageToDeadLetterQueueRequest>,
    ) -> Answer<ForwardMessageToDeadLetterQueueResponse> {
        unary(request, async |context, message| {
            forward_to_dead_letters::forward(&self.0, context, message).await
        })
        .await
    }

    type PullMessageStream = Answers<PullMessageResponse>;

    async fn pull_message(
        &self,
        request: Request<PullMessageRequest>,
    ) -> Answer<Self::PullMessageStream> {
        let (metadata, extensions, message) = request.into_parts();
        let answers = match Context::read(&metadata, &extensions) {
            Ok(context) => pull_message::pull_message(&self.0, &context, message).await,
            Err(failure) => Err(failure),
        };
        let answers = answers.unwrap_or_else(pull_message::failed);
        Ok(Response::new(Box::pin(tokio_stream::iter(answers.into_iter().map(Ok)))))
    }

    async fn update_offset(
        &self,
        request: Request<UpdateOffsetRequest>,
    ) -> Answer<UpdateOffsetResponse> {
        unary(request, async |_, message| offsets::update(&self.0, message).await).await
    }

    async fn get_offset(&self, request: Request<GetOffsetRequest>) -> Answer<GetOffsetResponse> {
        unary(request, async |_, message| offsets::get(&self.0, message).await).await
    }

    async fn query_offset(
        &self,
        request: Request<QueryOffsetRequest>,
    ) -> Answer<QueryOffsetResponse> {
        unary(request, async |_, message| offsets::query(&self.0, message).await).await
    }

    async fn end_transaction(
        &self,
        request: Request<EndTransactionRequest>,
    ) -> Answer<EndTransactionResponse> {
        unary(request, async |_, message| end_transaction::end_transaction(&self.0, message).await)
            .await
    }

    type TelemetryStream = Answers<TelemetryCommand>;

    async fn telemetry(
        &self,
        request: Request<Streaming<TelemetryCommand>>,
    ) -> Answer<Self::TelemetryStream> {
        let (metadata, extensions, commands) = request.into_parts();
        let context = Context::read(&metadata, &extensions)
            .map_err(|failure| tonic::Status::invalid_argument(failure.to_string()))?;
        let answers = telemetry::telemetry(self.0.clone(), context, commands);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn notify_client_termination(
        &self,
        request: Request<NotifyClientTerminationRequest>,
    ) -> Answer<NotifyClientTerminationResponse> {
        unary(request, async |context, _| {
            notify_client_termination::notify(&self.0, context).await;
            Ok(NotifyClientTerminationResponse { status: Some(ok()) })
        })
        .await
    }

    async fn change_invisible_duration(
        &self,
        request: Request<ChangeInvisibleDurationRequest>,
    ) -> Answer<ChangeInvisibleDurationResponse> {
        unary(request, async |context, message| {
            change_invisible_duration::change(&self.0, context, message).await
        })
        .await
    }

    async fn recall_message(
        &self,
        request: Request<RecallMessageRequest>,
    ) -> Answer<RecallMessageResponse> {
        unary(request, async |_, message| recall_message::recall(&self.0, message).await).await
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<SyncLiteSubscriptionRequest>,
    ) -> Answer<SyncLiteSubscriptionResponse> {
        Err(tonic::Status::unimplemented("lite topics are not served yet"))
    }
}
