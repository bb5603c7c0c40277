//! Compiles the bench's own BPF programs, and the tests' one that hands a queue's packets to an AF_XDP socket.

#[path = "../bpf/clang.rs"]
mod clang;

fn main() {
    clang::compile("bench", &["generator", "ends", "devmap"]);
    clang::compile("tests", &["xsk_guest"]);
}
