//! Makes Rust of the DPU interface's messages.
//!
//! For the server every field is optional: prost takes a missing `required` field for its default value, and this interface is
//! to say which field is missing. On the wire the label makes no difference. Reflection serves the messages as they are.

use std::path::Path;

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Label;

const PROTO: &str = "proto/dpu.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let out = std::env::var("OUT_DIR")?;
    let mut files = FileDescriptorSet::decode(protox::compile([PROTO], ["proto"])?.encode_to_vec().as_slice())?;
    std::fs::write(Path::new(&out).join("dpu.bin"), files.encode_to_vec())?;
    for message in files.file.iter_mut().flat_map(|file| &mut file.message_type) {
        for field in message.field.iter_mut().filter(|field| field.label() == Label::Required) {
            field.set_label(Label::Optional);
        }
    }
    tonic_prost_build::configure().build_client(false).codec_path("crate::grpc::codec::Codec").compile_fds(files)?;
    Ok(())
}
