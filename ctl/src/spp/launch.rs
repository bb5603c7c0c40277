//! What starts a process of the Soft Patch Panel: its name, and options of DPDK and of its own, made into an instance.
//!
//! Of DPDK's options those that name lcores count; the others (memory, devices) have no meaning here and are passed over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use switch::model::Compression;

use super::{CaptureOptions, DEFAULT_CAPTURE_LIMIT, Instance, PortId, Proc, ProcType};

/// Largest number of an lcore.
pub const MAX_LCORE: u32 = 1023;

/// An option with its value; `""` if it has none.
pub type Pair<'a> = (&'a str, &'a str);

/// An instance that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name.
    pub proc: Proc,
    /// Its lcores, the master core first.
    pub cores: Vec<u32>,
    /// pcap: the port that is captured.
    pub port: Option<PortId>,
    /// pcap: directory of the files; `None`: that of the configuration.
    pub directory: Option<PathBuf>,
    /// pcap: bytes after which the next file begins.
    pub limit: u64,
    /// pcap: compression of the files.
    pub compression: Compression,
}

impl Launch {
    /// Reads a process's name (`spp_vf` or `vf`), its client id and its options.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn read<'a>(
        name: &str,
        id: u32,
        eal: impl IntoIterator<Item = Pair<'a>>,
        app: impl IntoIterator<Item = Pair<'a>>,
    ) -> Result<Self, String> {
        let kind = match name.strip_prefix("spp_").unwrap_or(name) {
            "vf" => ProcType::Vf,
            "nfv" => ProcType::Nfv,
            "mirror" => ProcType::Mirror,
            "pcap" => ProcType::Pcap,
            other => {
                let other = other.escape_default();
                return Err(format!("`{other}` is not a process: spp_vf, spp_nfv, spp_mirror and spp_pcap are"));
            }
        };
        let proc = Proc { kind, id };
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
            match option {
                "-l" | "--lcores" => cores.extend(list(value)?),
                "-c" => cores.extend(mask(value)?),
                "--master-lcore" => master = Some(core(value)?),
                _ => {}
            }
        }
        if let Some(master) = master.filter(|master| !cores.contains(master)) {
            return Err(format!("--master-lcore: core {master} is not among the lcores"));
        }
        // As in DPDK: the lowest one unless it is named.
        let master = master.or(cores.first().copied());
        launch.cores.extend(master);
        launch.cores.extend(cores.into_iter().filter(|core| Some(*core) != master));
        for (option, value) in app {
            match option {
                "-n" | "--client-id" if value.parse() != Ok(id) => {
                    return Err(format!("{option} {}: the process is launched as {id}", value.escape_default()));
                }
                "-c" if kind == ProcType::Pcap => launch.port = Some(value.parse()?),
                "--out-dir" if kind == ProcType::Pcap => launch.directory = Some(PathBuf::from(value)),
                "--fsize" if kind == ProcType::Pcap => {
                    let bytes = value.parse().map_err(|_| format!("--fsize: `{}` bytes", value.escape_default()));
                    launch.limit = bytes?;
                }
                // Not one of SPP's: its files are LZ4 always.
                "--compression" if kind == ProcType::Pcap => launch.compression = compression(value)?,
                _ => {}
            }
        }
        Ok(launch)
    }

    /// The instance. Captures go to `directory` unless they name another.
    pub fn instance(&self, directory: &Path) -> Instance {
        let capture = self.port.map(|port| CaptureOptions {
            port,
            directory: self.directory.clone().unwrap_or_else(|| directory.to_owned()),
            limit: self.limit,
            compression: self.compression,
        });
        Instance::new(self.proc, self.cores.clone(), capture)
    }
}

/// The word of a compression, as `--compression` has it.
pub const fn compression_word(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    let all = [Compression::None, Compression::Lz4, Compression::Zstd];
    let known = all.into_iter().find(|known| compression_word(*known) == text);
    known.ok_or_else(|| format!("--compression: `{}`: none, lz4 or zstd", text.escape_default()))
}

/// Options as a command line has them: `-l 1,2`, `--proc-type=secondary`, `--vhost-client`.
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

fn core(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let core = digits.then(|| text.parse().ok()).flatten().filter(|core| *core <= MAX_LCORE);
    core.ok_or_else(|| format!("`{}` is not an lcore: 0 to {MAX_LCORE} are", text.escape_default()))
}

/// `1,4-7`; of `--lcores`' sets of CPUs (`2@3`, `(0-3)@1`) only the lcores count.
fn list(text: &str) -> Result<BTreeSet<u32>, String> {
    let mut cores = BTreeSet::new();
    let mut cpus = false;
    for part in text.split(',') {
        // What follows an @( belongs to it up to the bracket's end.
        if cpus {
            cpus = !part.ends_with(')');
            continue;
        }
        let (part, set) = part.split_once('@').unwrap_or((part, ""));
        cpus = set.starts_with('(') && !set.ends_with(')');
        let part = part.trim_matches(['(', ')']);
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (core(first)?, core(last)?);
        if first > last {
            return Err(format!("lcores {first}-{last}: the first is beyond the last"));
        }
        cores.extend(first..=last);
    }
    Ok(cores)
}

/// `0x1e`.
fn mask(text: &str) -> Result<BTreeSet<u32>, String> {
    let bad = || format!("`{}` is not a hexadecimal mask of lcores", text.escape_default());
    let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
    if digits.is_empty() || digits.len() > (MAX_LCORE as usize + 1) / 4 {
        return Err(bad());
    }
    let mut cores = BTreeSet::new();
    for (at, digit) in (0..).zip(digits.chars().rev()) {
        let bits = digit.to_digit(16).ok_or_else(bad)?;
        cores.extend((0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| at * 4 + bit));
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(words: &str) -> Result<Vec<u32>, String> {
        let words: Vec<_> = words.split(' ').collect();
        Launch::read("spp_vf", 1, pairs(&words), []).map(|launch| launch.cores)
    }

    #[test]
    fn the_first_core_is_the_master() {
        for (words, expected) in [
            ("-l 1,4-7", vec![1, 4, 5, 6, 7]),
            ("-m 512 -l 3,1,2 --proc-type secondary", vec![1, 2, 3]),
            ("-l 1-3 --master-lcore 2", vec![2, 1, 3]),
            ("-c 0x1e", vec![1, 2, 3, 4]),
            ("--lcores=0@1,(2-3)@(4,5),6", vec![0, 2, 3, 6]),
            ("--proc-type secondary", vec![]),
        ] {
            assert_eq!(cores(words), Ok(expected), "{words}");
        }
    }

    #[test]
    fn wrong_lcores_are_refused() {
        for words in ["-l", "-l x", "-l 3-1", "-l 1,,2", "-l 0-4096", "-c 0xg", "-c", "-l 1 --master-lcore 2"] {
            assert!(cores(words).is_err(), "{words}");
        }
    }

    #[test]
    fn a_capture_is_launched_with_its_port_and_files() {
        let app = [
            ("--client-id", "5"),
            ("-c", "phy:0"),
            ("--out-dir", "/var/cap"),
            ("--fsize", "2000000"),
            ("--compression", "zstd"),
        ];
        let launch = Launch::read("spp_pcap", 5, [], app).unwrap();
        let instance = launch.instance(Path::new("/tmp"));
        let capture = instance.capture.unwrap();
        assert_eq!((capture.directory.to_str(), capture.limit), (Some("/var/cap"), 2_000_000));
        assert_eq!(capture.compression, Compression::Zstd);
        let launch = Launch::read("pcap", 5, [], [("-c", "ring:1")]).unwrap();
        assert_eq!(launch.instance(Path::new("/tmp")).capture.unwrap().directory, Path::new("/tmp"));
        for app in [("-c", "phy"), ("--fsize", "big"), ("--client-id", "6"), ("--compression", "gzip")] {
            assert!(Launch::read("spp_pcap", 5, [], [app]).is_err(), "{app:?}");
        }
        assert!(Launch::read("spp_primary", 0, [], []).is_err());
    }
}
