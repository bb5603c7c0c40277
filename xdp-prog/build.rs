//! Compiles the XDP programs in `bpf/` into skeletons.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let bpf = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../bpf");
    // clang for the bpf target does not look where Debian keeps the architecture's <asm/types.h>.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = format!("-I/usr/include/{arch}-linux-gnu");
    SkeletonBuilder::new()
        .source(bpf.join("port.bpf.c"))
        .clang_args([multiarch.as_str(), "-Wall", "-Werror"])
        .build_and_generate(out.join("port.skel.rs"))
        .unwrap_or_else(|error| {
            panic!("compiling bpf/port.bpf.c (clang and the kernel's headers are needed): {error:#}")
        });
    for file in ["port.bpf.c", "xswitch.h"] {
        println!("cargo::rerun-if-changed={}", bpf.join(file).display());
    }
}
