//! Compiles the BPF program that hands a queue's packets to an AF_XDP socket.

#[path = "../../bpf/clang.rs"]
mod clang;

fn main() {
    clang::compile("tests", &["xsk_guest"]);
}
