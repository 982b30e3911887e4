//! What the launcher and a worker say to each other, all of it in files of the run folder.

mod compute;
mod download;
mod event;
mod folder;
mod job;
mod outcome;

pub use compute::{DeviceChoice, NumericPath};
pub use download::{DownloadEvent, Snapshot, SnapshotFile};
pub use event::{Event, EventBody, Level, Phase, Unit};
pub use folder::{AttemptFolder, JobFolder, RunFolder};
pub use job::{
    Ceiling, Evaluate, Height, JobSpec, Quantize, Reference, Reproduce, Resources, SilentExperts, TokenSource,
};
pub use outcome::{
    CalibrationSummary, CheckpointSummary, Evaluation, Outcome, PhaseTime, RankSummary, Reproduced, Status,
    Verdict, VerdictKind,
};

/// Version of every file of the protocol; bumped when a field changes its meaning.
///
/// Unknown fields are tolerated on reading, so adding one is no new version. `tests/golden/protocol/` holds a file
/// per version that must stay readable.
pub const VERSION: u32 = 1;
