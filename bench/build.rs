//! Compiles the bench's own BPF programs.

#[path = "../bpf/clang.rs"]
mod clang;

fn main() {
    clang::compile("bench", &["generator", "ends", "devmap"]);
}
