//! What jobs need, brought to where they run: the worker, the model, the data.

mod courier;
mod elf;
mod excerpt;
mod hub;
mod hub_id;
mod image;
mod local;
mod places;
mod shadow;
mod stage;
mod upload;
mod worker;

pub use courier::Courier;
pub use excerpt::excerpt;
pub use hub::{Couriers, explain, hub_ids, plan_hub};
pub use hub_id::{HubId, HubWanted};
pub use image::prepare_image;
pub use local::worker_binary;
pub use places::cluster_path;
pub use shadow::shadow_sweep;
pub use stage::{Known, Places, Staged, StagedBy, Staging, plan_staging, relocate};
pub use upload::{Upload, upload};
pub use worker::{portable_worker, ship_worker};
