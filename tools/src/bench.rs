//! `ferromq bench`: loads a server over plain RocketMQ remoting or gRPC, ours and the stock one alike.

use anyhow::Result;

mod compare;
mod disk;
mod e2e;
mod figures;
mod grpc;
mod poll;
mod process;
mod pull;
mod record;
mod send;
mod target;
mod template;
mod wire;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, clap::Subcommand)]
enum Workload {
    /// Produce, in closed loops or at a fixed rate
    Send(send::Args),
    /// Read what there is, from the first message to the last
    Pull(pull::Args),
    /// Time messages from send to receipt by a long-polling consumer
    E2e(e2e::Args),
    /// Produce over gRPC, in closed loops or at a fixed rate
    GrpcSend(grpc::SendArgs),
    /// Receive over gRPC and acknowledge
    GrpcReceive(grpc::ReceiveArgs),
    /// Time messages over gRPC, from when they are due to their receipt by push consumers
    GrpcE2e(grpc::E2eArgs),
    /// Let push consumers wait over gRPC, and look at the servers' memory
    GrpcIdle(grpc::IdleArgs),
    /// Append and fdatasync in a bare loop, without a server
    Disk(disk::Args),
    /// Measure FerroMQ and the stock server in turns and print the ratios
    Compare(compare::Args),
    /// The same over gRPC, with FerroMQ as one and as two processes
    CompareGrpc(compare::grpc::Args),
}

pub(crate) fn run(args: Args) -> Result<()> {
    // The caller reports an error as an event.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    match args.workload {
        Workload::Send(args) => send::run(&args)?.print(args.target.json),
        Workload::Pull(args) => pull::run(&args)?.print(args.target.json),
        Workload::E2e(args) => e2e::run(&args)?.print(args.target.json),
        Workload::GrpcSend(args) => grpc::send(&args)?.print(args.target.json),
        Workload::GrpcReceive(args) => grpc::receive(&args)?.print(args.target.json),
        Workload::GrpcE2e(args) => grpc::e2e(&args)?.print(args.target.json),
        Workload::GrpcIdle(args) => grpc::idle(&args)?.print(),
        Workload::Disk(args) => disk::run(&args)?.print(args.json),
        Workload::Compare(args) => compare::run(&args),
        Workload::CompareGrpc(args) => compare::grpc::run(&args),
    }
}
