//! Which device a job runs on, and why not on a GPU.

use std::str::FromStr;

use qlaunch_shared::{Error, Result};

use crate::libraries::{Driver, Places, Search, Wanted, search};

/// What a person asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU where one can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or an error that says why not.
    Cuda,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => {
                Err(Error::usage(format!("there is no device `{name}`")).hint("use `auto`, `cpu` or `cuda`"))
            }
        }
    }
}

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

/// What a job is told before it goes on with the CPU; nothing where that was to be expected.
///
/// # Errors
/// A GPU was asked for and cannot be used.
pub fn choose(choice: DeviceChoice, places: &Places) -> Result<Option<String>> {
    if choice == DeviceChoice::Cpu {
        return Ok(None);
    }
    let devices = driver(places).and_then(|driver| driver.devices().map_err(Obstacle::Fault));
    let refusal = match devices {
        Err(Obstacle::NoDriver) if choice == DeviceChoice::Auto => return Ok(None),
        Err(Obstacle::NoDriver) => {
            Error::input("there is no driver of NVIDIA's GPUs").hint(Wanted::CUDA.remedy)
        }
        Err(Obstacle::Fault(error)) => error,
        Ok(devices) if devices.is_empty() => Error::input("the driver sees no GPU")
            .hint("ask the scheduler for one, or look at `CUDA_VISIBLE_DEVICES`"),
        Ok(_) => Error::input("jobs do not run on GPUs yet").hint("use `--device cpu`"),
    };
    match choice {
        DeviceChoice::Cuda => Err(refusal.context("no GPU can be used")),
        _ => {
            let hint = refusal.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            Ok(Some(format!("the CPU does the work: {}{hint}", refusal.message)))
        }
    }
}
