//! Compiles the XDP programs in `bpf/` into skeletons.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let bpf = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../bpf");
    // clang for the bpf target does not look where Debian keeps <asm/types.h> of the architecture.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = format!("-I/usr/include/{arch}-linux-gnu");
    for program in ["port", "guest"] {
        SkeletonBuilder::new()
            .source(bpf.join(format!("{program}.bpf.c")))
            .clang_args([multiarch.as_str(), "-Wall", "-Werror"])
            .build_and_generate(out.join(format!("{program}.skel.rs")))
            .unwrap_or_else(|error| {
                panic!("compiling bpf/{program}.bpf.c (clang and the kernel's headers are needed): {error:#}")
            });
    }
    for file in ["port.bpf.c", "guest.bpf.c", "flows.h", "queues.h", "xswitch.h"] {
        println!("cargo::rerun-if-changed={}", bpf.join(file).display());
    }
}
