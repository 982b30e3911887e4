//! What all ranks of a job compute on: each says what it has, and all do the same.

use qlaunch_shared::protocol::{DeviceChoice, Level, NumericPath};
use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::comm::Communicator;
use crate::libraries::{Device, Places, Search, Wanted, search};
use crate::ops::CpuPath;
use crate::probe::choose;
use crate::report::{Reporter, host_name};

/// What a job wants to be computed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) device: DeviceChoice,
    /// The path that the run is pinned to, if any.
    pub(super) path: Option<NumericPath>,
}

/// What a rank computes on.
#[derive(Debug, Clone)]
pub(super) struct Computing {
    pub(super) path: NumericPath,
    /// The GPU, where the path is one of GPUs.
    pub(super) gpu: Option<Device>,
    /// Whether hidden states can go from GPU to GPU.
    pub(super) messages: Messages,
}

/// How hidden states go from rank to rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messages {
    Tcp,
    Nccl,
}

/// What one rank says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    host: String,
    cpu: NumericPath,
    gpu: Option<NumericPath>,
    /// What tells the GPU from others.
    uuid: Option<String>,
    nccl: bool,
}

/// Finds out what all ranks compute on.
///
/// # Errors
/// What was asked for cannot be had on every rank, or a rank is gone.
pub(super) fn agree(
    comm: &dyn Communicator,
    wish: Wish,
    places: &Places,
    reporter: &mut Reporter,
) -> Result<Computing> {
    let choice = wish.choice()?;
    let offer = choose(choice, turn(comm)?, places)?;
    if let Some(obstacle) = &offer.obstacle {
        let hint = obstacle.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        reporter.note(Level::Warning, format!("the CPU does the work: {}{hint}", obstacle.message));
    }
    let cpu = wish.path.filter(|path| !path.is_of_gpu()).unwrap_or_else(NumericPath::detect);
    let gpu = offer.gpu.as_ref().map(|(_, path)| *path);
    let uuid = offer.gpu.as_ref().and_then(|(device, _)| device.uuid.clone());
    let no_nccl = if gpu.is_some() && comm.size() > 1 { lack_of_nccl(places) } else { None };
    let all = gather(comm, &Said { host: host_name(), cpu, gpu, uuid, nccl: no_nccl.is_none() })?;
    let path = common(&all, wish.path)?;
    if let (Some(_), false) = (gpu, path.is_of_gpu()) {
        let lacking = "not all ranks have a GPU of one kind: the CPU does the work on all of them";
        if choice != DeviceChoice::Auto {
            return Err(unlike(&all));
        }
        reporter.note(Level::Warning, lacking);
    }
    let gpu = offer.gpu.map(|(device, _)| device).filter(|_| path.is_of_gpu());
    if let Some(device) = &gpu {
        reporter.note(Level::Info, format!("GPU {} ({}) does the work", device.index, device.name));
    }
    let messages = if path.is_of_gpu() { messages(&all) } else { Messages::Tcp };
    // Ranks that share a GPU have no use for NCCL, and lack nothing without it.
    if let (Some(missing), true) = (no_nccl, path.is_of_gpu() && are_alone(&all)) {
        reporter.note(Level::Warning, format!("hidden states go over TCP: {missing}"));
    }
    Ok(Computing { path, gpu, messages })
}

impl Wish {
    /// The device that the pinned path asks for, if it and what was asked for go together.
    fn choice(&self) -> Result<DeviceChoice> {
        let contradiction = |path: NumericPath| {
            let told = format!("`--device {}` has no numeric path `{path}`", self.device);
            Error::usage(told).hint("leave one of the two out")
        };
        match (self.device, self.path) {
            (device, None) => Ok(device),
            (DeviceChoice::Cpu, Some(path)) if path.is_of_gpu() => Err(contradiction(path)),
            (DeviceChoice::Auto, Some(path)) if path.is_of_gpu() => Ok(DeviceChoice::Cuda(None)),
            (device, Some(path)) if path.is_of_gpu() => Ok(device),
            (DeviceChoice::Cuda(_), Some(path)) => Err(contradiction(path)),
            (_, Some(_)) => Ok(DeviceChoice::Cpu),
        }
    }
}

/// Which of the ranks of its host this one is; none where it is the only rank of the job.
fn turn(comm: &dyn Communicator) -> Result<Option<usize>> {
    if comm.size() == 1 {
        return Ok(None);
    }
    let host = host_name().into_bytes();
    let all = comm.all_gather(host.clone())?;
    Ok(Some(all.iter().take(comm.rank()).filter(|other| **other == host).count()))
}

fn gather(comm: &dyn Communicator, own: &Said) -> Result<Vec<Said>> {
    let bug = |error: serde_json::Error| Error::bug(format!("cannot tell what a rank has: {error}"));
    let all = comm.all_gather(serde_json::to_vec(own).map_err(bug)?)?;
    all.iter().map(|said| serde_json::from_slice(said).map_err(bug)).collect()
}

/// The path of all ranks: that of their GPUs if all have the same, else the best that every CPU has.
fn common(all: &[Said], pinned: Option<NumericPath>) -> Result<NumericPath> {
    let first = all.first().and_then(|said| said.gpu);
    let of_gpus = first.filter(|path| all.iter().all(|said| said.gpu == Some(*path)));
    match (of_gpus, pinned) {
        (Some(path), Some(pinned)) if path != pinned => Err(Error::input(format!(
            "the run computes on `{pinned}`, and the GPU here on `{path}`"
        ))
        .hint(format!("run on a node with the same kind of GPU as before, or start a new run on `{path}`"))),
        (Some(path), _) => Ok(path),
        (None, Some(pinned)) if pinned.is_of_gpu() => Err(unlike(all)),
        (None, _) => {
            // The fastest stands first, and each has what those behind it need.
            let slowest = NumericPath::CPU.into_iter().rfind(|path| all.iter().any(|said| said.cpu == *path));
            slowest.map_or_else(|| Err(Error::bug("no rank has said what it has")), Ok)
        }
    }
}

/// Ranks that cannot compute the same.
fn unlike(all: &[Said]) -> Error {
    let of = |said: &Said| said.gpu.map_or("no GPU", NumericPath::name);
    let told: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(rank, said)| format!("rank {rank} on {}: {}", said.host, of(said)))
        .collect();
    Error::input(format!("ranks have different devices: {}", told.join(", ")))
        .hint("give all ranks GPUs of one kind, or none: `--device cpu`")
}

/// NCCL wants a GPU for each rank.
fn messages(all: &[Said]) -> Messages {
    let has_nccl = all.iter().all(|said| said.nccl);
    if all.len() > 1 && has_nccl && are_alone(all) { Messages::Nccl } else { Messages::Tcp }
}

/// Whether each rank is known to have a GPU of its own.
fn are_alone(all: &[Said]) -> bool {
    let own = |(at, said): (usize, &Said)| {
        let is_same = |other: &Said| (&other.host, &other.uuid) == (&said.host, &said.uuid);
        said.uuid.is_some() && !all[..at].iter().any(is_same)
    };
    all.iter().enumerate().all(own)
}

/// What this rank lacks for NCCL.
fn lack_of_nccl(places: &Places) -> Option<String> {
    match search(&Wanted::NCCL, places) {
        Search::Found(_) => None,
        Search::Absent => Some(format!("{} is not found ({})", Wanted::NCCL.name, Wanted::NCCL.remedy)),
        Search::Broken(error) => Some(error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: &str, gpu: Option<NumericPath>, uuid: &str) -> Said {
        let uuid = Some(uuid.to_owned()).filter(|_| gpu.is_some());
        Said { host: host.to_owned(), cpu: NumericPath::Avx2, gpu, uuid, nccl: gpu.is_some() }
    }

    const H100: Option<NumericPath> = Some(NumericPath::CudaSm90);

    #[test]
    fn all_ranks_compute_on_gpus_of_one_kind_or_none_does() {
        let alike = [said("a", H100, "1"), said("b", H100, "2")];
        assert_eq!(common(&alike, None).unwrap(), NumericPath::CudaSm90);
        let mut mixed = vec![said("a", H100, "1"), said("b", None, "")];
        mixed[1].cpu = NumericPath::Portable;
        assert_eq!(common(&mixed, None).unwrap(), NumericPath::Portable, "what both CPUs have");
        let older = [said("a", H100, "1"), said("b", Some(NumericPath::CudaSm80), "2")];
        assert_eq!(common(&older, None).unwrap(), NumericPath::Avx2);
        let error = common(&older, Some(NumericPath::CudaSm90)).unwrap_err();
        assert!(error.message.contains("rank 1 on b: cuda-sm80") && error.hint.is_some(), "{error}");
    }

    #[test]
    fn a_run_goes_on_with_the_path_that_it_began_with() {
        let other = common(&[said("a", H100, "1")], Some(NumericPath::CudaSm80)).unwrap_err();
        assert!(other.message.contains("`cuda-sm80`, and the GPU here on `cuda-sm90`"), "{other}");
        assert!(other.hint.is_some_and(|hint| hint.contains("cuda-sm90")));
        let wish = |device, path| Wish { device, path }.choice();
        let (cpu, gpu) = (Some(NumericPath::Avx2), H100);
        assert_eq!(wish(DeviceChoice::Auto, cpu).unwrap(), DeviceChoice::Cpu);
        assert_eq!(wish(DeviceChoice::Auto, gpu).unwrap(), DeviceChoice::Cuda(None));
        assert_eq!(wish(DeviceChoice::Cuda(Some(1)), gpu).unwrap(), DeviceChoice::Cuda(Some(1)));
        assert_eq!(wish(DeviceChoice::Auto, None).unwrap(), DeviceChoice::Auto);
        for (device, path) in [(DeviceChoice::Cuda(None), cpu), (DeviceChoice::Cpu, gpu)] {
            assert_eq!(wish(device, path).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn nccl_is_for_ranks_that_all_have_a_gpu_of_their_own() {
        let own = [said("a", H100, "1"), said("a", H100, "2")];
        assert_eq!(messages(&own), Messages::Nccl);
        assert_eq!(messages(&[said("a", H100, "1"), said("a", H100, "1")]), Messages::Tcp);
        assert_eq!(messages(&own[..1]), Messages::Tcp);
        let mut without = own.to_vec();
        without[1].nccl = false;
        assert_eq!(messages(&without), Messages::Tcp);
        without[1] = Said { uuid: None, ..own[1].clone() };
        assert_eq!(messages(&without), Messages::Tcp, "nobody knows whether it is another one");
    }
}
