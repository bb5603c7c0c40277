//! An operator's work with the Soft Patch Panel: recipes from SPP's use cases, SIGKILL in the middle of one, and a
//! configuration that assigns cores.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use tests::raw::RawSocket;
use tests::spp::phy;
use tests::{Daemon, Frame, Mac, Options, narrow};

const SOON: Duration = Duration::from_secs(5);

/// Plays a recipe from standard input.
fn play(daemon: &Daemon, recipe: &str) -> Output {
    let mut command = daemon.cli_command();
    command.args(["spp", "--file", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("xswitch starts");
    child.stdin.take().expect("a pipe").write_all(recipe.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn say(daemon: &Daemon, line: &str) -> String {
    let output = daemon.cli(&format!("spp {line}"));
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn arrives(at: &RawSocket, frame: &Frame) {
    assert!(at.recv_if(SOON, |got| got == frame).is_some(), "{frame:?} did not come");
}

/// NICs exist without being added, as in SPP. A loop is a patch too.
#[test]
fn nfv_patches_nics_as_spps_use_cases_have_it() {
    let daemon = Daemon::with("sppnfvuse", &Options { workers: 2, ..Options::default() });
    let wires = [0, 1].map(|no| phy(&daemon, no, 1));
    let sockets = [&wires[0], &wires[1]].map(|ns| RawSocket::open(ns, "wire"));
    let output = play(
        &daemon,
        "pri; launch nfv 1 -l 1,2 -m 512 -- -n 1 -s 127.0.0.1:6666\nnfv 1; patch phy:0 phy:1\nnfv 1; patch phy:1 phy:0\nnfv 1; forward\n",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let status = "- status: running\n- lcore_ids:\n  - master: 1\n  - slave: 2\n- ports:\n  - phy:0 -> phy:1\n  - phy:1 -> phy:0\n";
    assert_eq!(say(&daemon, "nfv 1 status"), status);
    let frame = |n: u8| Frame::ethernet(Mac::stranger(1), Mac::stranger(2)).payload(0x88b5, &[n; 46]);
    for (from, to) in [(0, 1), (1, 0)] {
        sockets[from].send(&frame(narrow(from)));
        arrives(&sockets[to], &frame(narrow(from)));
    }
    let output = play(
        &daemon,
        "nfv 1; stop\nnfv 1; patch reset\nnfv 1; patch phy:0 phy:0\nnfv 1; patch phy:1 phy:1\nnfv 1; forward\n",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    sockets[0].send(&frame(7));
    arrives(&sockets[0], &frame(7));
    assert_eq!(sockets[1].recv_if(Duration::from_millis(150), |got| *got == frame(7)), None);
    daemon.finish();
}

/// Every answered line is kept, running or held. Nothing else is kept.
#[test]
fn a_daemon_that_is_killed_in_a_recipe_has_what_it_acknowledged() {
    let mut daemon = Daemon::with("sppkill", &Options::default());
    let output = play(&daemon, "pri; launch vf 1 -l 0,1\nvf 1; component start now 1 forward\nvf 1; flush on\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut command = daemon.cli_command();
    command.args(["spp", "--file", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("xswitch starts");
    let lines: String = (0..5_000).map(|n| format!("vf 1; component start c{n} 1 forward\n")).collect();
    // The command reads all lines before it begins. There are far more than there is time or room for.
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    std::thread::sleep(Duration::from_millis(200));
    daemon.kill();
    let output = child.wait_with_output().expect("it ends");
    let (told, why) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{why}");
    let answered = told.lines().filter(|line| line.starts_with("Succeeded to start component 'c")).count();
    assert!(why.starts_with(&format!("xswitch: standard input:{}: ", answered + 1)), "{why}");
    daemon.launch();
    let instance = &daemon.get("spp")["instances"][1];
    assert_eq!(instance["running"]["components"].as_array().map(Vec::len), Some(1), "{instance}");
    let held = instance["staged"]["components"].as_array().map_or(0, Vec::len).saturating_sub(1);
    // The line under way may be kept without an answer.
    assert!(held == answered || held == answered + 1, "{answered} were answered, {held} are held");
    say(&daemon, "vf 1 flush discard");
    say(&daemon, "vf 1 exit");
    daemon.finish();
}

#[test]
fn a_configuration_that_gives_cores_away_is_told_by_log_and_doctor() {
    let config = |cores: &str| format!("[[spp.process]]\ntype = \"vf\"\nclient_id = 1\ncores = {cores}\n");
    let mut daemon = Daemon::with("sppclash", &Options { config: config("[0, 1]"), ..Options::default() });
    say(&daemon, "pri launch vf 2 -l 0,5");
    say(&daemon, "vf 1 component start f 1 forward");
    let doctor = |daemon: &Daemon| text(&daemon.cli("doctor").stdout);
    let healthy = doctor(&daemon);
    assert!(
        healthy.contains("SPP REST API: on 127.0.0.1:7777") && healthy.contains("SPP cores: lcores 1 on worker 0"),
        "{healthy}"
    );
    daemon.stop();
    let file = daemon.path("xswitch.toml");
    let old = std::fs::read_to_string(&file).expect("its configuration");
    std::fs::write(&file, old.replace("[0, 1]", "[0, 5]")).expect("a new one");
    daemon.launch();
    for clash in ["vf 1: component f is on core 1, which is not its own", "vf 2: core 5 is busy: it belongs to vf 1"] {
        assert!(daemon.log().contains(clash), "{}", daemon.log());
        assert!(doctor(&daemon).contains(clash), "{}", doctor(&daemon));
    }
    daemon.finish();
}

#[test]
fn the_directory_of_pcap_ports_is_made() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let directory = parent.path().join("a/pcap");
    let config = format!("[spp]\ndirectory = {directory:?}\n");
    let daemon = Daemon::with("sppdir", &Options { config, ..Options::default() });
    assert!(say(&daemon, "pri add pcap:1").contains("Add pcap:1."));
    assert!(directory.join("spp-tx1.pcap").exists());
    daemon.finish();
}
