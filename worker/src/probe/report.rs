//! All that is known of a node, as one document.

use std::path::PathBuf;

use qlaunch_shared::Error;
use serde::Serialize;

use super::choose::{Obstacle, driver};
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
    auto: &'static str,
    why: String,
}

/// Looks at this node.
pub fn probe(places: &Places) -> Probe {
    let mut libraries: Vec<Library> = Wanted::ALL.iter().map(|wanted| look(wanted, places)).collect();
    let (mut facts, mut devices, mut why) =
        (None, Vec::new(), "there is no driver of NVIDIA's GPUs".to_owned());
    let asked = driver(places).and_then(|driver| {
        facts =
            Some(DriverFacts { cuda: format!("{}.{}", driver.version / 1000, driver.version % 1000 / 10) });
        driver.devices().map_err(Obstacle::Fault)
    });
    match asked {
        Ok(found) if found.is_empty() => "the driver sees no GPU".clone_into(&mut why),
        Ok(found) => {
            "jobs do not run on GPUs yet".clone_into(&mut why);
            devices = found;
        }
        Err(Obstacle::NoDriver) => {}
        Err(Obstacle::Fault(error)) => {
            why.clone_from(&error.message);
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
        device: Chosen { auto: "cpu", why },
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
