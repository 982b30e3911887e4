//! What jobs need, brought to where they run: the worker, the model, the data.

mod elf;
mod excerpt;
mod image;
mod local;
mod places;
mod shadow;
mod stage;
mod upload;
mod worker;

pub use excerpt::excerpt;
pub use image::prepare_image;
pub use local::worker_binary;
pub use places::cluster_path;
pub use shadow::shadow_sweep;
pub use stage::{Places, Staged, Staging, plan_staging, relocate};
pub use upload::{Upload, upload};
pub use worker::{portable_worker, ship_worker};
