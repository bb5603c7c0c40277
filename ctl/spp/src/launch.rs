//! Launching an instance: reads the name and the options that an SPP process would be started with.
//!
//! Of DPDK's (EAL) options only those about lcores count. The others, such as memory and devices, are ignored.
//! Options that the type of process does not know are ignored too.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ctl_spp_types::compression_word;
use switch::model::Compression;

use super::{CaptureOptions, DEFAULT_CAPTURE_LIMIT, Instance, PortId, Proc, ProcType};

/// Largest lcore.
pub const MAX_LCORE: u32 = 1023;

/// An option and its value. The value is `""` if there is none.
pub type Pair<'a> = (&'a str, &'a str);

/// A request for an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name.
    pub proc: Proc,
    /// Its lcores, the master core first.
    pub cores: Vec<u32>,
    /// pcap: the port that is captured.
    pub port: Option<PortId>,
    /// pcap: directory of the files. `None`: the configured one.
    pub directory: Option<PathBuf>,
    /// pcap: bytes after which the next file begins.
    pub limit: u64,
    /// pcap: compression of the files.
    pub compression: Compression,
}

/// Why a process can't be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// This option is missing.
    Missing(&'static str),
    /// The value of this option is wrong, for this reason.
    Value(Side, String, String),
}

/// Whose an option is. `-c` exists on both sides: a mask of lcores, and the port of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// DPDK's environment abstraction layer.
    Eal,
    /// The process.
    App,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(option) => write!(f, "{option} is needed: a pcap instance has a port that it captures"),
            Self::Value(_, option, why) => write!(f, "{option}: {why}"),
        }
    }
}

/// The type of a process by its name, such as `spp_vf` or `vf`.
///
/// # Errors
/// There is no such process.
pub fn kind_of(name: &str) -> Result<ProcType, String> {
    match name.strip_prefix("spp_").unwrap_or(name) {
        "vf" => Ok(ProcType::Vf),
        "nfv" => Ok(ProcType::Nfv),
        "mirror" => Ok(ProcType::Mirror),
        "pcap" => Ok(ProcType::Pcap),
        // SPP's primary is started by hand. Here it can be started again after it was ended.
        "primary" => Ok(ProcType::Primary),
        other => {
            let other = other.escape_default();
            Err(format!("`{other}` is not a process: vf, nfv, mirror, pcap and primary are (spp_vf and so on)"))
        }
    }
}

impl Launch {
    /// Reads the options of a process.
    ///
    /// # Errors
    /// The first option that is missing or wrong.
    pub fn read<'a>(
        proc: Proc,
        eal: impl IntoIterator<Item = Pair<'a>>,
        app: impl IntoIterator<Item = Pair<'a>>,
    ) -> Result<Self, Wrong> {
        let mut launch = Self {
            proc,
            cores: vec![],
            port: None,
            directory: None,
            limit: DEFAULT_CAPTURE_LIMIT,
            compression: Compression::default(),
        };
        let (mut cores, mut master) = (BTreeSet::new(), None);
        for (option, value) in eal {
            let wrong = |why| Wrong::Value(Side::Eal, option.to_owned(), why);
            match option {
                "-l" | "--lcores" => cores.extend(list(value).map_err(wrong)?),
                "-c" => cores.extend(mask(value).map_err(wrong)?),
                "--master-lcore" => master = Some(core(value).map_err(wrong)?),
                _ => {}
            }
        }
        if let Some(master) = master.filter(|master| !cores.contains(master)) {
            let why = format!("core {master} is not among the lcores");
            return Err(Wrong::Value(Side::Eal, "--master-lcore".to_owned(), why));
        }
        // As in DPDK, the master core is the lowest one unless it is named.
        let master = master.or(cores.first().copied());
        launch.cores.extend(master);
        launch.cores.extend(cores.into_iter().filter(|core| Some(*core) != master));
        for (option, value) in app {
            launch.own(option, value).map_err(|why| Wrong::Value(Side::App, option.to_owned(), why))?;
        }
        match (proc.kind, launch.port) {
            (ProcType::Pcap, None) => Err(Wrong::Missing("-c")),
            _ => Ok(launch),
        }
    }

    /// Takes one of the process's own options.
    fn own(&mut self, option: &str, value: &str) -> Result<(), String> {
        let Proc { kind, id } = self.proc;
        match (option, kind) {
            // The process would register with spp-ctl by this number.
            ("-n", ProcType::Nfv) | ("--client-id", ProcType::Vf | ProcType::Mirror | ProcType::Pcap)
                if digits(value) != Some(id) =>
            {
                return Err(format!("`{}`: the process is launched as {id}", value.escape_default()));
            }
            ("-c", ProcType::Pcap) => self.port = Some(joined(value).parse()?),
            ("--out-dir", ProcType::Pcap) => {
                let path = Some(PathBuf::from(value)).filter(|path| path.is_absolute());
                let why = || format!("`{}` is not an absolute path", value.escape_default());
                self.directory = Some(path.ok_or_else(why)?);
            }
            ("--fsize", ProcType::Pcap) => {
                self.limit =
                    digits(value).ok_or_else(|| format!("`{}` is not a number of bytes", value.escape_default()))?;
            }
            // SPP does not have this option. Its files are always LZ4.
            ("--compression", ProcType::Pcap) => self.compression = compression(value)?,
            _ => {}
        }
        Ok(())
    }

    /// The instance to be made. A capture goes to `directory` unless it names another.
    pub fn instance(&self, directory: &Path) -> Instance {
        let capture = self.port.map(|port| CaptureOptions {
            port,
            directory: self.directory.clone().unwrap_or_else(|| directory.to_owned()),
            limit: self.limit,
            compression: self.compression,
            confined: false,
        });
        Instance::new(self.proc, self.cores.clone(), capture)
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    let all = [Compression::None, Compression::Lz4, Compression::Zstd];
    let known = all.into_iter().find(|known| compression_word(*known) == text);
    known.ok_or_else(|| format!("`{}`: none, lz4 or zstd", text.escape_default()))
}

/// Pairs up the words of a command line: `-l 1,2`, `--proc-type=secondary`, `--vhost-client`.
pub fn pairs<'a>(words: &[&'a str]) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some(pair) => pairs.push(pair),
            None => pairs.push((word, words.next_if(|next| !next.starts_with('-')).unwrap_or(""))),
        }
    }
    pairs
}

/// A number of digits only. `parse` would also take a sign.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.trim();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn core(text: &str) -> Result<u32, String> {
    let core = digits(text).filter(|core| *core <= MAX_LCORE);
    core.ok_or_else(|| format!("`{}` is not an lcore: 0 to {MAX_LCORE} are", text.escape_default()))
}

/// Reads a list of lcores: `1,3-5` or `(1,3-5)@0,6@2`. The CPUs after `@` are ignored, because the configuration binds
/// workers to CPUs.
fn list(text: &str) -> Result<BTreeSet<u32>, String> {
    let bad = || format!("`{}` is not a list of lcores", text.escape_default());
    let mut cores = BTreeSet::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (part, tail) = match text.strip_prefix('(') {
            Some(group) => group.split_once(')').ok_or_else(bad)?,
            None => text.split_at(text.find([',', '@']).unwrap_or(text.len())),
        };
        for range in part.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (core(first)?, core(last)?);
            if first > last {
                return Err(format!("lcores {first}-{last}: the first is beyond the last"));
            }
            cores.extend(first..=last);
        }
        let tail = match tail.strip_prefix('@') {
            Some(cpus) => match cpus.strip_prefix('(') {
                Some(group) => group.split_once(')').ok_or_else(bad)?.1,
                None => &cpus[cpus.find(',').unwrap_or(cpus.len())..],
            },
            None => tail,
        };
        rest = tail.strip_prefix(',');
        if rest.is_none() && !tail.is_empty() {
            return Err(bad());
        }
    }
    Ok(cores)
}

/// Reads a hexadecimal mask of lcores, such as `0x1e`.
fn mask(text: &str) -> Result<BTreeSet<u32>, String> {
    let bad = || format!("`{}` is not a hexadecimal mask of lcores", text.escape_default());
    let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() > (MAX_LCORE as usize + 1) / 4 {
        return Err(bad());
    }
    let mut cores = BTreeSet::new();
    for (at, digit) in (0..).zip(digits.chars().rev()) {
        let bits = digit.to_digit(16).ok_or_else(bad)?;
        cores.extend((0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| at * 4 + bit));
    }
    if cores.is_empty() { Err(bad()) } else { Ok(cores) }
}

/// A command with one blank between words, and a queue joined to its port: `phy:0 nq 1` becomes `phy:0nq1`.
pub fn joined(command: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in command.split_ascii_whitespace() {
        match words.as_slice() {
            [.., port, nq] if nq == "nq" && port.contains(':') => {
                let joined = format!("{port}nq{word}");
                words.truncate(words.len() - 2);
                words.push(joined);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn launch<'a>(kind: ProcType, app: impl IntoIterator<Item = Pair<'a>>) -> Result<Launch, Wrong> {
        Launch::read(Proc { kind, id: 5 }, [], app)
    }

    fn cores(words: &str) -> Result<Vec<u32>, Wrong> {
        let words: Vec<_> = words.split(' ').collect();
        Launch::read(Proc { kind: ProcType::Vf, id: 1 }, pairs(&words), []).map(|launch| launch.cores)
    }

    #[test]
    fn the_first_core_is_the_master() {
        for (words, expected) in [
            ("-l 1,2", vec![1, 2]),
            ("-l 3", vec![3]),
            ("-l 1,4-7", vec![1, 4, 5, 6, 7]),
            ("-m 512 -l 3,1,2 --proc-type secondary", vec![1, 2, 3]),
            ("-l 1-3 --master-lcore 2", vec![2, 1, 3]),
            ("-c 0x1e", vec![1, 2, 3, 4]),
            ("-c 0X3fe", vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
            ("-c 30", vec![4, 5]),
            ("--lcores=0@1,(2-3)@(4,5),6", vec![0, 2, 3, 6]),
            ("--lcores 0@1,(2,4-5)@0,7@(1-2),9", vec![0, 2, 4, 5, 7, 9]),
            ("--proc-type secondary", vec![]),
        ] {
            assert_eq!(cores(words), Ok(expected), "{words}");
        }
    }

    #[test]
    fn wrong_lcores_are_refused() {
        for words in [
            "-l",
            "-l ,",
            "-l 1,",
            "-l x",
            "-l 1-",
            "-l +1",
            "-l 3-1",
            "-l 1,,2",
            "-l 1024",
            "-l 0-4294967295",
            "-l null",
            "--lcores (1",
            "--lcores (1)2",
            "--lcores 1@(0",
            "-c 0xg",
            "-c 0x",
            "-c 0",
            "-c",
            "-l 1 --master-lcore 2",
            "-l 1,2 --master-lcore 3",
        ] {
            let option = words.split(' ').rfind(|word| word.starts_with('-')).unwrap();
            match cores(words) {
                Err(Wrong::Value(Side::Eal, wrong, _)) => assert_eq!(wrong, option, "{words}"),
                other => panic!("{words}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn any_list_is_understood_or_refused(text in "[0-9,()@ \\-]{0,16}") {
            if let Ok(cores) = list(&text) {
                prop_assert!(!cores.is_empty() && cores.into_iter().all(|core| core <= MAX_LCORE));
            }
        }
    }

    #[test]
    fn a_capture_is_launched_with_its_port_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let app = [
            ("--client-id", "5"),
            ("-c", "phy:0"),
            ("--out-dir", path),
            ("--fsize", "2000000"),
            ("--compression", "zstd"),
        ];
        let instance = launch(ProcType::Pcap, app).unwrap().instance(Path::new("/tmp"));
        let capture = instance.capture.unwrap();
        assert_eq!((capture.directory.as_path(), capture.limit), (dir.path(), 2_000_000));
        assert_eq!(capture.compression, Compression::Zstd);
        let instance = launch(ProcType::Pcap, [("-c", "ring:1")]).unwrap().instance(Path::new("/tmp"));
        assert_eq!(instance.capture.unwrap().directory, Path::new("/tmp"));
        assert_eq!(launch(ProcType::Pcap, []), Err(Wrong::Missing("-c")));
        for (option, value) in [
            ("-c", "phy"),
            ("--fsize", "big"),
            ("--fsize", "+1"),
            ("--client-id", "6"),
            ("--compression", "gzip"),
            ("--out-dir", "tmp"),
        ] {
            let wrong = launch(ProcType::Pcap, [("-c", "phy:0"), (option, value)]).unwrap_err();
            assert!(matches!(wrong, Wrong::Value(Side::App, ref of, _) if of == option), "{wrong}");
        }
    }

    #[test]
    fn options_of_another_process_mean_nothing() {
        assert!(launch(ProcType::Nfv, [("--client-id", "6"), ("-c", "x"), ("--out-dir", "x")]).is_ok());
        assert!(launch(ProcType::Vf, [("-n", "6")]).is_ok());
        assert!(launch(ProcType::Nfv, [("-n", "6")]).is_err());
        assert_eq!(kind_of("spp_pcap"), kind_of("pcap"));
        assert_eq!(kind_of("spp_primary"), Ok(ProcType::Primary));
        assert!(kind_of("spp_vm").is_err());
    }
}
