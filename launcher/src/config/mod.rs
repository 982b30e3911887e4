//! Settings in layers, where each value came from, and the files that are built in.

mod chosen;
mod embedded;
mod layer;
mod library;
mod modelopt;
mod notify;
mod profile;
mod settings;
mod surroundings;

pub use embedded::{template, template_names};
pub use library::library;
pub use modelopt::ClustersYaml;
pub use notify::{Notify, Occasion};
pub use profile::{
    ContainerRuntime, DockerProfile, Kind, NodeRuntime, ProcessProfile, Profile, SlurmProfile, SshProfile,
    WorkerBuild,
};
pub use settings::{Overrides, Settings, known_clusters};
pub use surroundings::{Secrets, Surroundings};
