pub mod made_up;

use super::*;
use crate::plot;
use made_up::{results, well_formed};

fn written(results: &Results) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    write(results, dir.path()).expect("written");
    let text = fs::read_to_string(dir.path().join("README.md")).expect("read");
    (dir, text)
}

#[test]
fn every_device_has_a_row_in_each_table_that_it_was_measured_for() {
    let (_dir, text) = written(&results());
    let part = |heading: &str| {
        let rest = text.split(&format!("{heading}\n")).nth(1).unwrap_or_else(|| panic!("{heading} is there"));
        rest.split("\n#").next().expect("a first part").to_owned()
    };
    for device in made_up::DEVICES {
        for heading in
            ["### 64 B", "### 1,500 B", "### Rules, 64 flows", "## Beside a storm", "### 1 kpps", "## Footprint"]
        {
            let rows = part(heading).lines().filter(|line| line.starts_with(&format!("| {device} |"))).count();
            assert_eq!(rows, 1, "{device} under {heading}");
        }
        let rows = part("## Offered rates").lines().filter(|line| line.starts_with(&format!("| {device} |"))).count();
        assert_eq!(rows, made_up::RATES.len(), "{device}, a row for each rate");
    }
    for line in ["- testpmd: could not be had", "make bench", "| kernel | 6.18 |", "| Open vSwitch | 3.1.0 |"] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn figures_are_of_the_median_in_the_unit_of_the_heading() {
    let (_dir, text) = written(&results());
    let row = |begin: &str| text.lines().find(|line| line.starts_with(begin)).map(str::to_owned).unwrap_or_default();
    // 2, 1.9 and 2.1 Mpps of 4 offered; CPU of 0.1 + 0.4 + 0.5, generator's of 0.2 in system and 0.8 in softirq.
    let xswitch = "| xswitch | 2.00 (1.90–2.10) | 1.00 (1.00–1.00) | 4.00 | 50.0 | 50 / 200 / 250 | 0 / 100 / 400 |";
    assert_eq!(row("| xswitch | 2.00"), xswitch);
    // 20 µs for Open vSwitch, 40 for xswitch: the p99 of three rounds.
    assert!(text.contains(
        "| xswitch | 1.00 | 20.0 (18.0–22.0) | 40.0 (36.0–44.0) | 80.0 (72.0–88.0) | 2.00 (2.00–2.00) | 3,000 |"
    ));
    // Half of what is offered arrives, with a storm and without one.
    let half = "50.0 (50.0–50.0)";
    assert!(text.contains("| device | 0/s | 20,000/s | as fast as it can |\n"));
    assert!(text.contains(&format!("| xswitch | {half} | {half} | {half} |")));
    assert!(text.contains("| xswitch | 200 | 65,536 | 1.50 | 64.0 | 0.300 |"));
    assert!(text.contains("| device \\ rules | 1 | 1,024 | 65,536 |"));
    assert!(text.contains(
        "| xswitch | 2.00 | 1.96 | 1.92 |\n| × first | 1.00 (1.00–1.00) | 0.980 (0.980–0.980) | 0.960 (0.960–0.960) |"
    ));
}

#[test]
fn plots_are_well_formed_and_name_their_series() {
    let (dir, text) = written(&results());
    let mut seen = 0;
    for file in fs::read_dir(dir.path()).expect("listed") {
        let path = file.expect("listed").path();
        if path.extension().is_none_or(|extension| extension != "svg") {
            continue;
        }
        seen += 1;
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let svg = fs::read_to_string(&path).expect("read");
        well_formed(&svg).unwrap_or_else(|why| panic!("{name}: {why}"));
        for device in made_up::DEVICES {
            assert!(svg.contains(&format!("\n{device}\n")), "{device} in {name}");
        }
        assert!(svg.len() < 64 * 1024, "{name} is small");
        assert!(text.contains(&format!("]({name})")), "{name} is shown");
    }
    assert_eq!(seen, 5, "overload, three of rates, one of rules");
}

#[test]
fn the_same_results_give_the_same_files() {
    let (one, _) = written(&results());
    let (other, _) = written(&results());
    for file in fs::read_dir(one.path()).expect("listed") {
        let name = file.expect("listed").file_name();
        let read = |dir: &tempfile::TempDir| fs::read(dir.path().join(&name)).expect("read");
        assert!(read(&one) == read(&other), "{name:?}");
    }
}

#[test]
fn empty_results_give_a_report_with_nothing_measured() {
    let (dir, text) = written(&Results::default());
    assert!(!text.contains("## Overload") && !text.contains("| met |"));
    assert!(text.contains("| not measured |"));
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "no plots");
}

#[test]
fn whatever_is_missing_is_left_out() {
    let whole = results();
    for device in made_up::DEVICES {
        let mut part = whole.clone();
        part.points.retain(|point| point.device != device);
        part.latencies.retain(|latency| latency.device != device);
        part.footprints.retain(|footprint| footprint.device != device);
        let (_dir, text) = written(&part);
        assert!(!text.contains(&format!("| {device} |")), "{device}");
    }
    let mut empty = whole;
    empty.points.iter_mut().for_each(|point| point.samples.clear());
    empty.latencies.iter_mut().for_each(|latency| latency.rounds.clear());
    let (_dir, text) = written(&empty);
    assert!(!text.contains("NaN") && !text.contains("inf"), "no rounds are dashes");
}

#[test]
fn results_from_json_give_the_same_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("results.json");
    results().save(&path).expect("saved");
    let (_dir, again) = written(&Results::load(&path).expect("loaded"));
    let (_dir, first) = written(&results());
    assert_eq!(again, first);
    fs::write(&path, "{}").expect("written");
    assert!(Results::load(&path).is_err());
}

#[test]
fn names_that_mean_something_to_xml_or_markdown_are_escaped() {
    let name = "a <b> & \"c\" | d";
    let series = vec![plot::Series { name: name.to_owned(), points: vec![(1.0, 1.0), (10.0, 2.0)] }];
    let svg = plot::lines(&plot::Lines { x: "x < y", y: "y & z", series }).expect("drawn").expect("two points");
    well_formed(&svg).expect("well-formed");
    let mut results = results();
    results.points.iter_mut().for_each(|point| point.device = name.to_owned());
    let (_dir, text) = written(&results);
    assert!(text.contains("a <b> & \"c\" \\| d"));
}
