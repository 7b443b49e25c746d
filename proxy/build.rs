//! Compiles the services of the gRPC protocol: what is served. The messages are `protocol::grpc`'s.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let include = "../protocol/proto";
    let files = [
        "apache/rocketmq/v2/definition.proto",
        "apache/rocketmq/v2/service.proto",
        "apache/rocketmq/v2/admin.proto",
    ];
    let descriptors = protox::compile(files, [include])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        .build_transport(false)
        .codec_path("crate::codec::Lean")
        .extern_path(".apache.rocketmq.v2", "::protocol::grpc")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={include}");
    Ok(())
}
