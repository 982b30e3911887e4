//! Where a job computes, and the numeric path that fixes its bits.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where the work is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// A GPU where one can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or an error that says why not: this one of those that the process sees, or for each rank of a host another one.
    Cuda(Option<usize>),
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = match name {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(None)),
            _ => name.strip_prefix("cuda:").and_then(|index| Some(Self::Cuda(Some(index.parse().ok()?)))),
        };
        known.ok_or_else(|| {
            Error::usage(format!("there is no device `{name}`"))
                .hint("use `auto`, `cpu`, `cuda`, or one GPU by its number, as in `cuda:0`")
        })
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// What a result was computed with: the instruction set of a CPU, or the generation of a GPU. Bytes are the same for any
/// threads, ranks and batch size on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumericPath {
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
    /// AVX2 with FMA; bf16 is widened to f32.
    Avx2,
    /// Plain multiply and add, on any CPU.
    Portable,
    /// GPUs of compute capability 8.0 to 8.8.
    #[serde(rename = "cuda-sm80")]
    CudaSm80,
    /// GPUs of compute capability 8.9.
    #[serde(rename = "cuda-sm89")]
    CudaSm89,
    /// GPUs of compute capability 9.x.
    #[serde(rename = "cuda-sm90")]
    CudaSm90,
    /// GPUs of compute capability 10.x and 11.x.
    #[serde(rename = "cuda-sm100")]
    CudaSm100,
    /// GPUs from compute capability 12.0 on.
    #[serde(rename = "cuda-sm120")]
    CudaSm120,
}

impl NumericPath {
    /// Those of CPUs, the fastest first; each CPU that has one has those behind it.
    pub const CPU: [Self; 3] = [Self::Avx512Bf16, Self::Avx2, Self::Portable];

    /// Those of GPUs, the oldest first; a GPU has one.
    pub const GPU: [Self; 5] =
        [Self::CudaSm80, Self::CudaSm89, Self::CudaSm90, Self::CudaSm100, Self::CudaSm120];

    /// The name that files and flags use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512Bf16 => "avx512bf16",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
            Self::CudaSm80 => "cuda-sm80",
            Self::CudaSm89 => "cuda-sm89",
            Self::CudaSm90 => "cuda-sm90",
            Self::CudaSm100 => "cuda-sm100",
            Self::CudaSm120 => "cuda-sm120",
        }
    }

    /// Whether a GPU computes it.
    pub fn is_of_gpu(self) -> bool {
        Self::GPU.contains(&self)
    }

    /// That of a GPU by its compute capability, 90 for 9.0; none where the GPU is too old.
    pub const fn of_capability(capability: i32) -> Option<Self> {
        match capability {
            ..80 => None,
            89 => Some(Self::CudaSm89),
            80..90 => Some(Self::CudaSm80),
            90..100 => Some(Self::CudaSm90),
            100..120 => Some(Self::CudaSm100),
            120.. => Some(Self::CudaSm120),
        }
    }
}

impl std::fmt::Display for NumericPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for NumericPath {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::CPU.into_iter().chain(Self::GPU).find(|path| path.name() == name).ok_or_else(|| {
            Error::usage(format!("there is no numeric path `{name}`"))
                .hint("use `avx512bf16`, `avx2` or `portable`, or a GPU's: `cuda-sm80`, `-sm89`, `-sm90`, `-sm100`, `-sm120`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_and_flags_are_the_same() {
        for path in NumericPath::CPU.into_iter().chain(NumericPath::GPU) {
            assert_eq!(path.name().parse::<NumericPath>().unwrap(), path);
            assert_eq!(serde_json::to_value(path).unwrap(), path.name());
        }
        for name in ["auto", "cpu", "cuda", "cuda:3"] {
            let choice: DeviceChoice = name.parse().unwrap();
            assert_eq!(choice.to_string(), name);
            assert_eq!(serde_json::to_value(choice).unwrap(), name);
            assert_eq!(serde_json::from_value::<DeviceChoice>(name.into()).unwrap(), choice);
        }
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA"] {
            assert!(wrong.parse::<DeviceChoice>().unwrap_err().hint.is_some(), "{wrong}");
        }
        let error = serde_json::from_value::<DeviceChoice>("gpu".into()).unwrap_err();
        assert!(error.to_string().contains("cuda:0"), "{error}");
    }

    #[test]
    fn every_generation_of_gpus_has_one_path() {
        let of = |capability| NumericPath::of_capability(capability).map(NumericPath::name);
        assert_eq!(of(75), None);
        assert_eq!((of(80), of(86), of(87)), (Some("cuda-sm80"), Some("cuda-sm80"), Some("cuda-sm80")));
        assert_eq!((of(89), of(90)), (Some("cuda-sm89"), Some("cuda-sm90")));
        assert_eq!((of(100), of(103), of(110)), (Some("cuda-sm100"), Some("cuda-sm100"), Some("cuda-sm100")));
        assert_eq!((of(120), of(121), of(130)), (Some("cuda-sm120"), Some("cuda-sm120"), Some("cuda-sm120")));
    }
}
