//! The stream that lives as long as its client: settings one way and back, commands to the client.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use protocol::grpc::settings::PubSub;
use protocol::grpc::telemetry_command::Command;
use protocol::grpc::{Code, ReconnectEndpointsCommand, Settings, TelemetryCommand};
use remoting::clock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::debug;

use super::check;
use super::context::Context;
use super::settings::merged;
use super::status::{Failure, ok};
use crate::clients::{CLIENTS_MAX, COMMANDS_MAX, Commands, Told};
use crate::front::Front;

pub(super) fn telemetry(
    front: Arc<Front>,
    context: Context,
    commands: Streaming<TelemetryCommand>,
) -> impl Stream<Item = Result<TelemetryCommand, Status>> {
    let (out, stream) = mpsc::channel(COMMANDS_MAX);
    tokio::spawn(serve(front, context, commands, out));
    ReceiverStream::new(stream).map(|command| command.map(|command| *command))
}

/// Reads what the client says until it ends its stream.
async fn serve(
    front: Arc<Front>,
    context: Context,
    mut commands: Streaming<TelemetryCommand>,
    out: Commands,
) {
    let Some(stream) = front.clients.attach(&context, out.clone(), clock::instant()) else {
        let _ = out.send(Err(Status::resource_exhausted(too_many_clients().message))).await;
        return;
    };
    loop {
        let command = tokio::select! {
            command = commands.message() => command,
            () = out.closed() => break,
            () = front.ending.cancelled() => {
                // Whoever does not read its stream learns of the end from its connection.
                let _ = out.try_send(Ok(Box::new(elsewhere())));
                break;
            }
        };
        let Ok(Some(command)) = command else { break };
        match command.command {
            Some(Command::Settings(settings)) => {
                let answer = described(&front, &context, settings).await;
                if out.send(answer.map(Box::new)).await.is_err() {
                    break;
                }
            }
            Some(Command::ThreadStackTrace(trace)) => {
                let told = Told { status: command.status, text: trace.thread_stack_trace };
                front.clients.answered(&trace.nonce, told);
            }
            Some(Command::VerifyMessageResult(result)) => {
                let told = Told { status: command.status, text: None };
                front.clients.answered(&result.nonce, told);
            }
            _ => debug!(client = context.client_id, "a command that only servers send"),
        }
    }
    // What the client holds stays with it until it takes its leave or is silent for too long.
    front.clients.detach(&context.client_id, stream, clock::instant());
}

/// Asks a client to go to another proxy, or to this one when it is back.
fn elsewhere() -> TelemetryCommand {
    let command = ReconnectEndpointsCommand { nonce: String::new() };
    let command = Some(Command::ReconnectEndpointsCommand(command));
    TelemetryCommand { status: None, command }
}

/// Keeps what a client says of itself and answers what it shall do.
async fn described(
    front: &Front,
    context: &Context,
    settings: Settings,
) -> Result<TelemetryCommand, Status> {
    let refused = |failure: Failure| {
        let text = failure.to_string();
        if i32::from(failure.code) < Code::InternalError.into() {
            Status::invalid_argument(text)
        } else {
            Status::internal(text)
        }
    };
    checked(&settings).map_err(refused)?;
    let group = match &settings.pub_sub {
        Some(PubSub::Subscription(subscription)) => match &subscription.group {
            // Brokers that cannot be asked right now must not keep a client from starting.
            Some(group) => front.backend.group(&group.name).await.ok(),
            None => None,
        },
        _ => None,
    };
    let merged = merged(&front.config, settings, group.as_deref());
    if !front.clients.describe(context, Arc::new(merged.clone()), clock::instant()) {
        return Err(refused(too_many_clients()));
    }
    Ok(TelemetryCommand { status: Some(ok()), command: Some(Command::Settings(merged)) })
}

fn checked(settings: &Settings) -> Result<(), Failure> {
    check::client_properties(&settings.client_properties)?;
    match &settings.pub_sub {
        Some(PubSub::Publishing(publishing)) => {
            publishing.topics.iter().try_for_each(|topic| check::topic(Some(topic)).map(|_| ()))
        }
        Some(PubSub::Subscription(subscription)) => {
            check::group(subscription.group.as_ref())?;
            let entries = subscription.subscriptions.iter();
            entries.map(|entry| check::topic(entry.topic.as_ref())).try_for_each(|t| t.map(|_| ()))
        }
        None => {
            let message = "the settings are neither a producer's nor a consumer's";
            Err(Failure::new(Code::UnrecognizedClientType, message))
        }
    }
}

pub(super) fn too_many_clients() -> Failure {
    let message = format!("there are {CLIENTS_MAX} clients already, the limit of a proxy");
    Failure::new(Code::TooManyRequests, message)
}
