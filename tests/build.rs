//! Compiles the tests' own BPF programs.

#[path = "../bpf/clang.rs"]
mod clang;

fn main() {
    clang::compile("tests", &["generator", "sink", "xsk_guest"]);
}
