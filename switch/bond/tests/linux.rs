//! Options, compared with what the Linux bonding driver answered: each value, in each mode and state of a bond.
//! `scripts/bond-options.sh` makes the table.

use std::time::Duration;

use bond::options::{OptionError, Options};
use bond::{Bond, Duplex, Link, NewMember};
use model::MacAddr;

const TABLE: &str = include_str!("linux-options.tsv");

/// A bond in the state that a row of the table starts from.
fn bond(mode: &str, state: &str, miimon: bool) -> Bond {
    let mut bond = Bond::new(Options::default(), None);
    bond.set_option(Duration::ZERO, "mode", mode).expect("a mode");
    if miimon {
        bond.set_option(Duration::ZERO, "miimon", "100").expect("an interval");
    }
    if state == "members" {
        let link = Link { up: true, speed: Some(10_000), duplex: Some(Duplex::Full) };
        bond.add(Duration::ZERO, NewMember { name: "eth0".to_owned(), mac: MacAddr::from_u64(2), link });
    }
    bond.set_up(Duration::ZERO, state == "up");
    bond
}

fn shown(bond: &Bond, name: &str) -> String {
    let mut all = bond.options().all().into_iter();
    all.find(|(option, _)| *option == name).map(|(_, value)| value).expect("an option")
}

#[test]
fn options_are_taken_and_refused_as_by_the_driver() {
    let mut wrong = Vec::new();
    let rows: Vec<_> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(rows.len() > 1000, "{} rows", rows.len());
    for row in rows {
        let columns: Vec<_> = row.split('\t').collect();
        let [mode, state, option, value, error, after, miimon] = columns[..] else { panic!("{row}") };
        let mut bond = bond(mode, state, option.ends_with("delay") && miimon == "100");
        let (errno, text) = match bond.set_option(Duration::ZERO, option, value) {
            Ok(_) => (0, String::new()),
            Err(error @ OptionError::NotHere { .. }) => panic!("{row}: {error}"),
            Err(error) => (error.errno(), error.to_string()),
        };
        // The driver shows these in mode 802.3ad only, and a primary only once it is a member.
        let hidden = after.is_empty() && (option.starts_with("ad_") || option == "primary");
        let after = if hidden { shown(&bond, option) } else { after.to_owned() };
        let is = (errno.to_string(), shown(&bond, option), shown(&bond, "miimon"));
        if is != (error.to_owned(), after, miimon.to_owned()) {
            wrong.push(format!("{row}: {is:?} {text}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}
