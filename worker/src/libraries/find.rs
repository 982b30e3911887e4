//! Where a library may lie: where the system looks, in CUDA's folders, and in Python environments, whose wheels bring CUDA
//! libraries along.

use std::path::{Path, PathBuf};

/// A library that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What people call it.
    pub name: &'static str,
    /// File names, the best first: the one with the version of the interface goes before the bare one.
    pub files: &'static [&'static str],
    /// Folder of NVIDIA's wheels that it lies in, below `nvidia/`; empty where no wheel has it.
    pub wheel: &'static str,
    /// The variable that names its file and goes before every search.
    pub variable: &'static str,
    /// Functions that it is of no use without.
    pub symbols: &'static [&'static str],
    /// What to do where it is missing.
    pub remedy: &'static str,
}

impl Wanted {
    /// The driver of NVIDIA's GPUs.
    pub const CUDA: Self = Self {
        name: "libcuda",
        files: &["libcuda.so.1", "libcuda.so"],
        wheel: "",
        variable: "QLAUNCH_LIBCUDA",
        symbols: &[
            "cuInit",
            "cuDriverGetVersion",
            "cuDeviceGetCount",
            "cuDeviceGet",
            "cuDeviceGetName",
            "cuDeviceGetAttribute",
            "cuDeviceTotalMem_v2",
        ],
        remedy: "install NVIDIA's driver, or ask for `nvidia-smi` to work on this host",
    };
    /// Matrix products on GPUs.
    pub const CUBLAS_LT: Self = Self {
        name: "libcublasLt",
        files: &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
        wheel: "cublas",
        variable: "QLAUNCH_LIBCUBLASLT",
        symbols: &["cublasLtCreate", "cublasLtMatmul"],
        remedy: "`pip install nvidia-cublas-cu12` into a Python environment, and activate it",
    };
    /// Messages between GPUs.
    pub const NCCL: Self = Self {
        name: "libnccl",
        files: &["libnccl.so.2", "libnccl.so"],
        wheel: "nccl",
        variable: "QLAUNCH_LIBNCCL",
        symbols: &[
            "ncclGetVersion",
            "ncclGetUniqueId",
            "ncclGetErrorString",
            "ncclCommInitRankConfig",
            "ncclCommGetAsyncError",
            "ncclCommFinalize",
            "ncclCommDestroy",
            "ncclCommAbort",
            "ncclSend",
            "ncclRecv",
        ],
        remedy: "`pip install nvidia-nccl-cu12` into a Python environment, and activate it; ranks talk over TCP without it",
    };
    /// All that are looked for.
    pub const ALL: [Self; 3] = [Self::CUDA, Self::CUBLAS_LT, Self::NCCL];
}

/// Where to look beside the places that the system knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Files that variables name, by the variable.
    pub named: Vec<(String, PathBuf)>,
    /// Folders with libraries.
    pub folders: Vec<PathBuf>,
    /// Roots of Python environments.
    pub pythons: Vec<PathBuf>,
}

impl Places {
    /// Those of this process's environment.
    pub fn gather() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = Wanted::ALL
            .iter()
            .filter_map(|wanted| Some((wanted.variable.to_owned(), path(wanted.variable)?)));
        let toolkits =
            ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(path).chain(["/usr/local/cuda".into()]);
        let inside = ["lib64", "lib", "targets/x86_64-linux/lib"];
        let folders = toolkits.flat_map(|root: PathBuf| inside.map(|folder| root.join(folder)));
        // Where Windows keeps the driver of its Linux.
        let folders = folders.chain(["/usr/lib/wsl/lib".into()]);
        let mut pythons: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path).collect();
        pythons.extend(interpreters(path("PATH")));
        pythons.extend(path("HOME").map(|home| home.join(".local")));
        pythons.extend(["/usr/local".into(), "/usr".into()]);
        Self { named: named.collect(), folders: folders.collect(), pythons }
    }

    /// Every file that may be the library, the likeliest first.
    pub fn candidates(&self, wanted: &Wanted) -> Vec<PathBuf> {
        let in_wheels =
            self.pythons.iter().filter(|_| !wanted.wheel.is_empty()).flat_map(|root| packages(root));
        let in_wheels = in_wheels.map(|packages| packages.join("nvidia").join(wanted.wheel).join("lib"));
        let folders: Vec<PathBuf> = self.folders.iter().cloned().chain(in_wheels).collect();
        let mut files: Vec<PathBuf> = Vec::new();
        for file in folders.iter().flat_map(|folder| wanted.files.iter().map(|file| folder.join(file))) {
            if file.is_file() && !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }

    /// The file that a variable names.
    pub fn named(&self, wanted: &Wanted) -> Option<&Path> {
        let found = self.named.iter().find(|(variable, _)| variable == wanted.variable);
        found.map(|(_, path)| path.as_path())
    }
}

/// Roots of the environments of the Python that a shell would start.
fn interpreters(path: Option<PathBuf>) -> Vec<PathBuf> {
    let Some(path) = path else { return Vec::new() };
    let found = std::env::split_paths(&path)
        .flat_map(|folder| ["python3", "python"].map(|name| folder.join(name)))
        .find(|program| program.is_file());
    let Some(program) = found else { return Vec::new() };
    let root = |program: &Path| Some(program.parent()?.parent()?.to_path_buf());
    let real = std::fs::canonicalize(&program).ok();
    root(&program).into_iter().chain(real.and_then(|real| root(&real))).collect()
}

/// Folders of installed packages of a Python environment, the newest Python first.
fn packages(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join("lib")) else { return Vec::new() };
    let is_python =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
    let mut pythons: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_python).collect();
    // 3.10 comes after 3.9.
    pythons.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        std::cmp::Reverse(name.trim_start_matches("python3.").parse::<u32>().unwrap_or(0))
    });
    pythons
        .iter()
        .flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_in_folders_and_in_wheels_of_the_newest_python() {
        let work = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = work.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let old = at("env/lib/python3.9/site-packages/nvidia/nccl/lib/libnccl.so.2");
        let new = at("env/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2");
        at("env/lib/python3.12/site-packages/nvidia/cublas/lib/libcublas.so.12");
        let bare = at("cuda/lib64/libnccl.so");
        let places = Places {
            named: Vec::new(),
            folders: vec![work.path().join("cuda/lib64"), work.path().join("gone")],
            pythons: vec![work.path().join("env")],
        };
        assert_eq!(places.candidates(&Wanted::NCCL), [bare, new, old]);
        assert!(places.candidates(&Wanted::CUDA).is_empty());
    }
}
