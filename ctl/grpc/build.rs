//! Generates Rust code for the messages of the DPU interface.
//!
//! For the server all fields are made optional. prost reads a missing `required` field as its default value, but this
//! interface has to name the missing field. The encoding is the same. Reflection serves the original descriptors.

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
    tonic_prost_build::configure().build_client(false).codec_path("crate::codec::Codec").compile_fds(files)?;
    Ok(())
}
