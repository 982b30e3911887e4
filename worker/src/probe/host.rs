//! What the operating system says of processor and memory.

use qlaunch_shared::protocol::NumericPath;
use serde::Serialize;

use crate::ops::CpuPath;

/// Instruction sets that kernels may use.
const FEATURES: [&str; 10] = [
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_bf16",
    "avx512_vnni",
    "amx_bf16",
    "bf16",
];

/// The processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Its name.
    pub name: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Instruction sets that matter here.
    pub features: Vec<String>,
    /// Numeric paths that it can compute on, the fastest first.
    pub numeric_paths: Vec<NumericPath>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Of the host.
    pub total: u64,
    /// Of it, free or to be freed at once.
    pub available: u64,
    /// What this process and its like may take, where the host sets a limit.
    pub limit: Option<u64>,
}

/// Asks for the processor.
pub fn cpu() -> Cpu {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|own| own.trim() == key));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let flags = value("flags").or_else(|| value("Features")).unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let has = |feature: &&&str| flags.contains(*feature);
    Cpu {
        name: value("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        features: FEATURES.iter().filter(has).map(|feature| (*feature).to_owned()).collect(),
        numeric_paths: NumericPath::CPU.into_iter().filter(|path| path.available()).collect(),
    }
}

/// Asks for memory.
pub fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    };
    // Version 2 of control groups, then version 1; `max` and absurdly large numbers are no limit.
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .filter(|limit| *limit < 1 << 60);
    Memory { total: value("MemTotal:"), available: value("MemAvailable:"), limit }
}
