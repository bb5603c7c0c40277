//! Examples from the API references of SPP, 2018 to 2020.
//!
//! An example has the processes and requests that it assumes, the printed request and answer, and the intended
//! differences of our answer. Lines that end with `\` for the shell are joined.

mod others;
mod primary;
mod vf;

use serde_json::Value;

/// Ports of the machine that the examples assume: two NICs with that many queues, and ports of two VMs.
pub fn ports(queues: u32) -> String {
    let nic = |no: u32| {
        format!(
            "[[port]]\nname = \"nic{no}\"\nkind = \"phy\"\nifname = \"eth1{no}\"\nqueues = {queues}\n\
             mac = \"56:48:4f:53:54:0{no}\"\nspp = \"phy:{no}\"\n"
        )
    };
    let vm = |no: u32| format!("[[port]]\nname = \"vm{no}\"\nkind = \"guest\"\nspp = \"vhost:{no}\"\n");
    [nic(0), nic(1), vm(0), vm(1)].concat()
}

/// An instance as text of a configuration file.
pub fn process(kind: &str, client_id: u32, cores: &[u32]) -> String {
    format!("[[spp.process]]\ntype = \"{kind}\"\nclient_id = {client_id}\ncores = {cores:?}\n")
}

/// Type, client id and lcores of each process. A pcap process captures `phy:0`.
pub type Processes = &'static [(&'static str, u32, &'static [u32])];

/// An example.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// What it shows, with the year where the references differ.
    pub name: &'static str,
    /// Processes that it assumes.
    pub processes: Processes,
    /// Requests made before. Each must be answered by 204, or by 200 if it is about flow rules.
    pub before: &'static [&'static str],
    /// Method, path and optional body, separated by spaces.
    pub request: &'static str,
    /// The expected answer.
    pub answer: Answer,
}

/// An expected answer.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// 204 without a body.
    Done,
    /// 200 with this JSON, apart from the differences.
    Json(&'static str, &'static [Difference]),
    /// 400 with this text.
    Refused(&'static str),
}

/// An intended difference from the printed answer.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// JSON pointer to it.
    pub at: &'static str,
    /// Our value there.
    pub ours: Ours,
    /// The reason.
    pub why: &'static str,
}

/// Our value in place of the printed one.
#[derive(Clone, Copy, Debug)]
pub enum Ours {
    /// This JSON, whether or not a value is printed.
    Json(&'static str),
    /// A text that matches this pattern. `*` matches anything.
    Like(&'static str),
    /// Any value of the same shape. Objects have the same keys. Elements of a list have the shape of the first printed
    /// one.
    Shape,
}

/// An example that is answered by 204.
const fn done(
    name: &'static str,
    processes: Processes,
    before: &'static [&'static str],
    request: &'static str,
) -> Example {
    Example { name, processes, before, request, answer: Answer::Done }
}

/// All examples.
pub fn examples() -> impl Iterator<Item = &'static Example> {
    [others::EXAMPLES, vf::EXAMPLES, primary::EXAMPLES].into_iter().flatten()
}

impl Example {
    /// Its processes and ports as text of a configuration file.
    pub fn config(&self) -> String {
        let line = |&(kind, id, cores): &(&str, u32, &[u32])| {
            let port = if kind == "pcap" { "port = \"phy:0\"\n" } else { "" };
            process(kind, id, cores) + port
        };
        self.processes.iter().map(line).collect::<String>() + &ports(self.queues())
    }

    /// Queues of its NICs. One that is not about queues has a NIC with one, and so no queues in its answer.
    pub fn queues(&self) -> u32 {
        let requests = self.before.iter().chain([&self.request]);
        if requests.copied().any(|request| request.contains("nq") || request.contains("flow_rule")) { 4 } else { 1 }
    }

    /// Checks status, content type and body of an answer.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, status: u16, content_type: &str, body: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{}: {what}: {status} {content_type} {body}", self.name));
        let (code, kind) = match self.answer {
            Answer::Done => (204, ""),
            Answer::Json(..) => (200, "application/json"),
            Answer::Refused(_) => (400, "text/plain"),
        };
        if (status, content_type) != (code, kind) {
            return wrong(&format!("not {code} {kind}"));
        }
        match self.answer {
            Answer::Done if body.is_empty() => Ok(()),
            Answer::Refused(text) if body == text => Ok(()),
            Answer::Done | Answer::Refused(_) => wrong("another text"),
            Answer::Json(printed, differences) => {
                let Ok(said) = serde_json::from_str::<Value>(body) else { return wrong("no JSON") };
                let expected = expected(printed, differences, &said).map_err(|why| format!("{}: {why}", self.name))?;
                if said == expected { Ok(()) } else { wrong(&format!("not {expected}")) }
            }
        }
    }
}

/// Method, path and body of a request on one line.
pub fn parts(request: &str) -> (&str, &str, &str) {
    let (method, rest) = request.split_once(' ').unwrap_or((request, ""));
    let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
    (method, path, body)
}

/// The printed answer with the differences applied. An open difference takes the value from `said`, if it matches.
fn expected(printed: &str, differences: &[Difference], said: &Value) -> Result<Value, String> {
    let mut expected: Value = serde_json::from_str(printed).map_err(|error| error.to_string())?;
    for Difference { at, ours, why } in differences {
        let old = expected.pointer(at).cloned();
        let there = said.pointer(at).ok_or_else(|| format!("nothing at {at}"))?;
        let new = match ours {
            Ours::Json(text) => serde_json::from_str(text).map_err(|error| format!("{at}: {error}"))?,
            Ours::Like(pattern) if there.as_str().is_some_and(|text| like(pattern, text)) => there.clone(),
            Ours::Shape if old.as_ref().is_some_and(|old| same_shape(old, there)) => there.clone(),
            Ours::Like(_) | Ours::Shape => return Err(format!("{at} is {there} ({why})")),
        };
        if old.as_ref() == Some(&new) && matches!(ours, Ours::Json(_)) {
            return Err(format!("{at} does not differ from what is printed"));
        }
        match at.rsplit_once('/') {
            None => expected = new,
            Some((parent, key)) => match expected.pointer_mut(parent) {
                Some(Value::Object(map)) => drop(map.insert(key.to_owned(), new)),
                Some(Value::Array(list)) => {
                    let slot = key.parse().ok().and_then(|n: usize| list.get_mut(n));
                    *slot.ok_or_else(|| format!("nothing printed at {at}"))? = new;
                }
                _ => return Err(format!("nothing printed at {parent}")),
            },
        }
    }
    Ok(expected)
}

fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((begin, rest)) => text.strip_prefix(begin).is_some_and(|text| {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| like(rest, &text[at..]))
        }),
    }
}

fn same_shape(printed: &Value, said: &Value) -> bool {
    match (printed, said) {
        (Value::Object(printed), Value::Object(said)) => {
            printed.len() == said.len()
                && printed.iter().all(|(key, value)| said.get(key).is_some_and(|said| same_shape(value, said)))
        }
        (Value::Array(printed), Value::Array(said)) => {
            !said.is_empty() && printed.first().is_some_and(|first| said.iter().all(|said| same_shape(first, said)))
        }
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(printed: &'static str, differences: &'static [Difference]) -> Example {
        let answer = Answer::Json(printed, differences);
        Example { name: "a", processes: &[], before: &[], request: "GET /", answer }
    }

    #[test]
    fn only_what_is_printed_or_is_to_differ_is_right() {
        const DIFFERENCES: &[Difference] = &[
            Difference { at: "/b", ours: Ours::Json("2"), why: "" },
            Difference { at: "/c", ours: Ours::Json("[3]"), why: "" },
            Difference { at: "/d/0", ours: Ours::Like("/*/x.*.lz4"), why: "" },
            Difference { at: "/e", ours: Ours::Shape, why: "" },
        ];
        let example = example(r#"{"a": 1, "b": 1, "d": ["/tmp/x.1"], "e": [{"n": 0}]}"#, DIFFERENCES);
        let check = |body: &str| example.check(200, "application/json", body);
        assert_eq!(check(r#"{"a": 1, "b": 2, "c": [3], "d": ["/t/x.9.lz4"], "e": [{"n": 7}, {"n": 8}]}"#), Ok(()));
        for wrong in [
            r#"{"a": 2, "b": 2, "c": [3], "d": ["/t/x.9.lz4"], "e": [{"n": 7}]}"#,
            r#"{"a": 1, "b": 1, "c": [3], "d": ["/t/x.9.lz4"], "e": [{"n": 7}]}"#,
            r#"{"a": 1, "b": 2, "d": ["/t/x.9.lz4"], "e": [{"n": 7}]}"#,
            r#"{"a": 1, "b": 2, "c": [3], "d": ["/t/y.9.lz4"], "e": [{"n": 7}]}"#,
            r#"{"a": 1, "b": 2, "c": [3], "d": ["/t/x.9.lz4"], "e": []}"#,
            r#"{"a": 1, "b": 2, "c": [3], "d": ["/t/x.9.lz4"], "e": [{"n": 7, "m": 1}]}"#,
            r#"{"a": 1, "b": 2, "c": [3], "d": ["/t/x.9.lz4"], "e": [{"n": 7}], "f": 1}"#,
            "",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert!(example.check(200, "text/plain", "{}").is_err());
    }

    #[test]
    fn a_difference_that_is_none_is_wrong() {
        const SAME: &[Difference] = &[Difference { at: "/a", ours: Ours::Json("1"), why: "" }];
        assert!(example(r#"{"a": 1}"#, SAME).check(200, "application/json", r#"{"a": 1}"#).is_err());
    }
}
