//! All that is known of a node, as one document.

use std::path::PathBuf;

use qlaunch_shared::Error;
use qlaunch_shared::protocol::DeviceChoice;
use serde::Serialize;

use super::choose::{Obstacle, Offer, choose, driver};
use super::host::{Cpu, Memory, cpu, memory};
use crate::libraries::{Device, Places, Search, Wanted, search};
use crate::report::host_name;

/// Version of the document; bumped when a field changes its meaning.
const VERSION: u32 = 1;

/// What a node has.
#[derive(Debug, Serialize)]
pub struct Probe {
    version: u32,
    /// Version of the worker.
    worker: String,
    host: String,
    cpu: Cpu,
    memory: Memory,
    libraries: Vec<Library>,
    driver: Option<DriverFacts>,
    devices: Vec<Device>,
    device: Chosen,
}

/// One library.
#[derive(Debug, Serialize)]
struct Library {
    name: &'static str,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Found,
    Absent,
    Broken,
}

#[derive(Debug, Serialize)]
struct DriverFacts {
    /// Version of CUDA that it serves at most.
    cuda: String,
}

/// What `--device auto` comes to here.
#[derive(Debug, Serialize)]
struct Chosen {
    auto: String,
    why: String,
}

/// Looks at this node.
pub fn probe(places: &Places) -> Probe {
    let mut libraries: Vec<Library> = Wanted::ALL.iter().map(|wanted| look(wanted, places)).collect();
    let (mut facts, mut devices) = (None, Vec::new());
    let asked = driver(places).and_then(|driver| {
        facts =
            Some(DriverFacts { cuda: format!("{}.{}", driver.version / 1000, driver.version % 1000 / 10) });
        let found = driver.devices().map_err(Obstacle::Fault)?;
        Ok(found.into_iter().map(|device| driver.look(device)).collect())
    });
    match asked {
        Ok(found) => devices = found,
        Err(Obstacle::NoDriver) => {}
        Err(Obstacle::Fault(error)) => {
            let cuda = libraries.iter_mut().find(|library| library.name == Wanted::CUDA.name);
            if let Some(cuda) = cuda {
                (cuda.state, cuda.error) = (State::Broken, Some(error));
            }
        }
    }
    Probe {
        version: VERSION,
        worker: env!("CARGO_PKG_VERSION").to_owned(),
        host: host_name(),
        cpu: cpu(),
        memory: memory(),
        libraries,
        driver: facts,
        devices,
        device: chosen(places),
    }
}

fn chosen(places: &Places) -> Chosen {
    let cpu = |why| Chosen { auto: "cpu".to_owned(), why };
    match choose(DeviceChoice::Auto, None, places) {
        Ok(Offer { gpu: Some((device, path)), .. }) => Chosen {
            auto: format!("cuda:{}", device.index),
            why: format!("{} computes on {path}", device.name),
        },
        Ok(Offer { obstacle: Some(error), .. }) | Err(error) => cpu(error.message),
        Ok(Offer { .. }) => cpu("there is no driver of NVIDIA's GPUs".to_owned()),
    }
}

fn look(wanted: &Wanted, places: &Places) -> Library {
    let library = |state, path, error| Library { name: wanted.name, state, path, version: None, error };
    match search(wanted, places) {
        Search::Found(loaded) => {
            let version = if *wanted == Wanted::NCCL { crate::comm::nccl::version(&loaded) } else { None };
            Library { version, ..library(State::Found, loaded.path, None) }
        }
        Search::Absent => library(State::Absent, None, None),
        Search::Broken(error) => library(State::Broken, error.place.file.clone(), Some(error)),
    }
}
