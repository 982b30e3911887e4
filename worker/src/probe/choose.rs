//! Which device a job can compute on, and why not on a GPU.

use qlaunch_shared::protocol::{DeviceChoice, NumericPath};
use qlaunch_shared::{Error, Result};

use crate::libraries::{Device, Driver, Places, Search, Wanted, search};
use crate::ops::{CpuPath, cuda};

/// What stands between a job and the GPUs of this node.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// There is no driver: a node without GPUs.
    NoDriver,
    /// There is one, and it does not work.
    Fault(Error),
}

/// The driver, or what is wrong with it.
///
/// # Errors
/// There is none, or it does not work.
pub(super) fn driver(places: &Places) -> Result<Driver, Obstacle> {
    match search(&Wanted::CUDA, places) {
        Search::Absent => Err(Obstacle::NoDriver),
        Search::Broken(error) => Err(Obstacle::Fault(error)),
        Search::Found(library) => {
            let path = library.path.clone();
            Driver::init(library).map_err(|error| {
                Obstacle::Fault(match path {
                    Some(path) => error.at(path),
                    None => error,
                })
            })
        }
    }
}

/// What a process can offer to compute with beside the CPU.
#[derive(Debug, Default)]
pub struct Offer {
    /// A GPU, and its numeric path.
    pub gpu: Option<(Device, NumericPath)>,
    /// Why there is none, where that was not to be expected.
    pub obstacle: Option<Error>,
}

/// Finds a GPU to compute on, as far as one is wanted. Each rank of a host takes its `turn`; a job that is alone here has none,
/// and takes the GPU with most free memory.
///
/// # Errors
/// A GPU was asked for and cannot be used.
pub fn choose(choice: DeviceChoice, turn: Option<usize>, places: &Places) -> Result<Offer> {
    if choice == DeviceChoice::Cpu {
        return Ok(Offer::default());
    }
    let usable = driver(places).and_then(|driver| {
        let devices = driver.devices().map_err(Obstacle::Fault)?;
        let picked = pick((choice, turn), devices, |device| driver.look(device));
        picked.and_then(|device| ready(device, places)).map_err(Obstacle::Fault)
    });
    match (usable, choice) {
        (Ok(gpu), _) => Ok(Offer { gpu: Some(gpu), obstacle: None }),
        (Err(Obstacle::NoDriver), DeviceChoice::Auto) => Ok(Offer::default()),
        (Err(Obstacle::Fault(error)), DeviceChoice::Auto) => Ok(Offer { gpu: None, obstacle: Some(error) }),
        (Err(Obstacle::NoDriver), _) => {
            let none = Error::input("there is no driver of NVIDIA's GPUs").hint(Wanted::CUDA.remedy);
            Err(none.context("no GPU can be used"))
        }
        (Err(Obstacle::Fault(error)), _) => Err(error.context("no GPU can be used")),
    }
}

/// One of the GPUs that the driver sees. Only those in question are looked at: looking uses a GPU for a moment, which another
/// rank may want for itself alone.
fn pick(
    (choice, turn): (DeviceChoice, Option<usize>),
    devices: Vec<Device>,
    look: impl Fn(Device) -> Device,
) -> Result<Device> {
    let count = devices.len();
    if count == 0 {
        return Err(Error::input("the driver sees no GPU")
            .hint("ask the scheduler for one, or look at `CUDA_VISIBLE_DEVICES`"));
    }
    let device = match (choice, turn) {
        (DeviceChoice::Cuda(Some(index)), _) => devices.into_iter().nth(index).map(look),
        (_, Some(turn)) => devices.into_iter().nth(turn % count).map(look),
        // Among equals, the first.
        (_, None) => devices.into_iter().rev().map(look).max_by_key(|device| device.free),
    };
    device.ok_or_else(|| {
        Error::input(format!("the driver sees {count} GPUs, which count from 0"))
            .hint("`qlaunch doctor` lists them; `CUDA_VISIBLE_DEVICES` may hide some")
    })
}

/// A GPU with its numeric path, if there is all that is needed to compute on it.
fn ready(device: Device, places: &Places) -> Result<(Device, NumericPath)> {
    let path = usable(&device)?;
    NumericPath::beside_gpu().require()?;
    cuda::load(places)?;
    Ok((device, path))
}

/// The numeric path of a GPU that a job can have.
fn usable(device: &Device) -> Result<NumericPath> {
    let Device { index, name, capability, .. } = device;
    let Some(path) = NumericPath::of_capability(*capability) else {
        let (major, minor) = (capability / 10, capability % 10);
        return Err(Error::input(format!("GPU {index} ({name}) has compute capability {major}.{minor}"))
            .hint("GPUs from 8.0 on are served; `--device cpu` computes on the CPU"));
    };
    match device.free {
        None => Err(Error::input(format!("GPU {index} ({name}) is occupied: it takes no further process"))
            .hint("`nvidia-smi` shows who has it; wait, or ask for a GPU of your own")),
        Some(_) => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: i32, capability: i32, free: Option<u64>) -> Device {
        Device { index, name: "GPU".to_owned(), uuid: None, capability, memory: 80_000_000_000, free }
    }

    #[test]
    fn a_gpu_that_is_too_old_or_occupied_is_refused() {
        let error = usable(&gpu(0, 75, Some(1))).unwrap_err();
        assert!(error.message.contains("7.5") && error.hint.is_some(), "{error}");
        let error = usable(&gpu(1, 90, None)).unwrap_err();
        assert!(error.message.contains("GPU 1 (GPU) is occupied") && error.hint.is_some(), "{error}");
        assert_eq!(usable(&gpu(0, 90, Some(70))).unwrap(), NumericPath::CudaSm90);
    }

    #[test]
    fn each_rank_takes_its_turn_and_looks_at_no_other_gpu() {
        let devices = || (0..3).map(|index| gpu(index, 90, None)).collect::<Vec<_>>();
        let free = |device: Device| Device { free: Some([5, 9, 9][device.index as usize]), ..device };
        let pick = |choice, turn| pick((choice, turn), devices(), free).map(|device| device.index);
        assert_eq!(pick(DeviceChoice::Auto, None).unwrap(), 1, "the first of those with most free memory");
        assert_eq!(pick(DeviceChoice::Cuda(None), Some(0)).unwrap(), 0);
        assert_eq!(pick(DeviceChoice::Auto, Some(4)).unwrap(), 1, "more ranks than GPUs share them");
        assert_eq!(pick(DeviceChoice::Cuda(Some(2)), Some(0)).unwrap(), 2);
        let error = pick(DeviceChoice::Cuda(Some(3)), None).unwrap_err();
        assert!(error.message.contains("3 GPUs, which count from 0") && error.hint.is_some(), "{error}");
        let only = |device: Device| match device.index {
            1 => device,
            other => panic!("a look at GPU {other}"),
        };
        assert_eq!(super::pick((DeviceChoice::Auto, Some(1)), devices(), only).unwrap().index, 1);
        let error = super::pick((DeviceChoice::Auto, None), Vec::new(), free).unwrap_err();
        assert!(error.message.contains("sees no GPU"), "{error}");
    }
}
