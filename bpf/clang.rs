//! Compiles BPF programs with clang into plain objects that aya loads at run time. Build scripts share this file.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `bpf/DIR/NAME.bpf.c` for each name into `OUT_DIR/NAME.bpf.o`. The calling crate's directory, or one above
/// it, has the directory `bpf`.
pub fn compile(dir: &str, names: &[&str]) {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let source_dir = above.map(|root| root.join("bpf").join(dir)).find(|path| path.is_dir());
    let source_dir = source_dir.unwrap_or_else(|| panic!("no bpf/{dir} above {}", env!("CARGO_MANIFEST_DIR")));
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed={}", source_dir.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    for name in names {
        let source = source_dir.join(format!("{name}.bpf.c"));
        let object = out_dir.join(format!("{name}.bpf.o"));
        let mut command = Command::new(&clang);
        command.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf"]);
        // The kernel's headers include <asm/types.h>, which Debian keeps in the directory of the host's architecture.
        // clang looks there only when it compiles for the host.
        if let Ok(arch) = std::env::var("CARGO_CFG_TARGET_ARCH") {
            command.arg(format!("-I/usr/include/{arch}-linux-gnu"));
        }
        command.arg("-c").arg(&source).arg("-o").arg(&object);
        let status = command.status().unwrap_or_else(|error| panic!("{clang}: {error}; `make setup` installs it"));
        assert!(status.success(), "{clang} could not compile {}", source.display());
    }
}
