//! Sockets and their files.

use std::fs::{File, create_dir, symlink_metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use nix::errno::Errno;
use nix::sys::socket::{Backlog, UnixAddr, bind, listen};
use tempfile::TempDir;

use super::*;
use crate::connection::Ended;

const ACCESS: Access = Access { owner: None, group: None, mode: 0o600 };

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("vm1.sock");
    (dir, path)
}

fn is_listened_at(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

#[test]
fn a_socket_has_owner_group_and_mode_as_asked() {
    let (_dir, path) = place();
    let listener = Listener::bind(&path, Access { mode: 0o660, ..ACCESS }).unwrap();
    let meta = symlink_metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.mode() & 0o7777, 0o660);
    assert_eq!((listener.path(), listener.is_in_place()), (path.as_path(), true));
    drop(listener);
    let (owner, group) = if nix::unistd::geteuid().is_root() { (4321, 8765) } else { (meta.uid(), meta.gid()) };
    let listener = Listener::bind(&path, Access { owner: Some(owner), group: Some(group), mode: 0o606 }).unwrap();
    let meta = symlink_metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (owner, group, 0o606));
    drop(listener);
    assert!(symlink_metadata(&path).is_err(), "the file goes with the socket");
}

#[test]
fn a_socket_that_nobody_listens_at_is_replaced() {
    let (dir, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    drop(Listener::bind(&path, ACCESS).unwrap());
    drop(UnixDatagram::bind(&path).unwrap());
    let listener = Listener::bind(&path, ACCESS).unwrap();
    assert!(is_listened_at(&path));
    assert_eq!(dir.path().read_dir().unwrap().count(), 1, "nothing is left beside it");
    drop(listener);
}

#[test]
fn a_socket_that_somebody_listens_at_stays() {
    let (dir, path) = place();
    let other = Listener::bind(&path, ACCESS).unwrap();
    assert!(matches!(Listener::bind(&path, ACCESS), Err(BindError::InUse(_))));
    assert!(other.is_in_place());
    // The look at it is a connection that ends at once.
    let mut looked = other.accept().unwrap().expect("a connection");
    assert!(matches!(looked.next_message(), Err(Ended::Closed)));
    drop(other);
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path, ACCESS), Err(BindError::InUse(_))));
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_file_of_another_kind_stays() {
    let (dir, path) = place();
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let makers: [&dyn Fn(); 3] =
        [&|| File::create(&path).unwrap().write_all(b"precious").unwrap(), &|| create_dir(&path).unwrap(), &|| {
            symlink(&stale, &path).unwrap()
        }];
    for make in makers {
        make();
        let before = symlink_metadata(&path).unwrap().ino();
        let error = Listener::bind(&path, ACCESS).unwrap_err();
        assert!(matches!(error, BindError::OtherFile(_)), "{error}");
        assert!(error.to_string().ends_with("vm1.sock is not a socket, and is left as it is"));
        assert_eq!(symlink_metadata(&path).unwrap().ino(), before);
        let _ = std::fs::remove_dir(&path).or_else(|_| std::fs::remove_file(&path));
    }
    assert!(stale.exists());
}

#[test]
fn a_file_that_took_its_place_is_not_removed() {
    let (_dir, path) = place();
    let listener = Listener::bind(&path, ACCESS).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(!listener.is_in_place());
    let other = Listener::bind(&path, ACCESS).unwrap();
    assert!(!listener.is_in_place());
    drop(listener);
    assert!(other.is_in_place() && is_listened_at(&path));
}

#[test]
fn of_many_that_replace_a_socket_at_once_at_most_one_has_it() {
    for _ in 0..100 {
        let (dir, path) = place();
        drop(UnixListener::bind(&path).unwrap());
        let start = Barrier::new(4);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Listener::bind(&path, ACCESS)
                    })
                })
                .collect();
            tries.into_iter().map(|tried| tried.join().unwrap()).collect()
        });
        let listeners: Vec<_> = bound.into_iter().flatten().collect();
        assert!(listeners.len() <= 1, "{listeners:?}");
        assert!(listeners.iter().all(Listener::is_in_place));
        drop(listeners);
        drop(Listener::bind(&path, ACCESS).expect("whatever was left"));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}

#[test]
fn a_place_that_can_not_be_is_told() {
    let (dir, path) = place();
    let long = dir.path().join("x".repeat(108));
    let error = Listener::bind(&long, ACCESS).unwrap_err().to_string();
    assert!(error.starts_with("taking as a socket's path ") && error.contains("ENAMETOOLONG"), "{error}");
    assert_eq!(connect(&long).map(|_| ()), Err(ConnectError::Failed(Errno::ENAMETOOLONG)));
    let nowhere = dir.path().join("nowhere/vm1.sock");
    let error = Listener::bind(&nowhere, ACCESS).unwrap_err().to_string();
    assert!(error.starts_with("making ") && error.contains("ENOENT"), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_server_has_one_front_end_and_turns_others_away() {
    let (_dir, path) = place();
    let listener = Listener::bind(&path, ACCESS).unwrap();
    assert!(listener.accept().unwrap().is_none(), "nobody waits");
    let first = UnixStream::connect(&path).unwrap();
    let mut others: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let connection = listener.accept().unwrap().expect("the first");
    assert_eq!(listener.turn_away().unwrap(), 3);
    assert_eq!(listener.turn_away().unwrap(), 0);
    for other in &mut others {
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "it learns at once");
    }
    assert!(!connection.is_hung_up());
    // A guest that starts anew may be there before the end of its last connection was read.
    drop(first);
    let _next = UnixStream::connect(&path).unwrap();
    assert!(connection.is_hung_up());
    assert!(listener.accept().unwrap().is_some());
}

#[test]
fn a_client_is_told_whether_another_try_helps() {
    let (_dir, path) = place();
    let absent = |errno| Err(ConnectError::Absent(errno));
    assert_eq!(connect(&path).map(|_| ()), absent(Errno::ENOENT));
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(connect(&path).map(|_| ()), absent(Errno::ECONNREFUSED));
    std::fs::remove_file(&path).unwrap();
    // One that waits fills this backlog.
    let busy = super::client::stream_socket().unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&busy), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&busy, Backlog::new(0).unwrap()).unwrap();
    let _waits = connect(&path).unwrap();
    assert_eq!(connect(&path).map(|_| ()), absent(Errno::EAGAIN));
}

#[test]
fn a_client_s_connection_carries_messages() {
    let (_dir, path) = place();
    let front_end = UnixListener::bind(&path).unwrap();
    let mut connection = connect(&path).unwrap();
    let (mut front, _) = front_end.accept().unwrap();
    assert!(connection.next_message().unwrap().is_none());
    front.write_all(&[3_u32, 1, 0].map(u32::to_ne_bytes).concat()).unwrap();
    assert_eq!(connection.next_message().unwrap().expect("a message").code, 3);
}
