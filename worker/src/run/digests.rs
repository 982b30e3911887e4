//! Digests of the source's tensors: read once, and kept for as long as the files stay as they are.

use std::collections::BTreeMap;

use qlaunch_shared::digest::sha256;
use qlaunch_shared::model::Model;
use qlaunch_shared::store::SourceDigests;
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use crate::comm::Communicator;
use crate::store::{Store, unique};
use crate::tensor::MappedCheckpoint;

/// SHA-256 of every tensor of a model, by name. The first rank reads what is not known yet, and the others hear of it.
///
/// # Errors
/// The model cannot be read, the store cannot be written, or a rank is gone.
pub(super) fn digests(
    store: &Store,
    (model, files): (&Model, &MappedCheckpoint),
    comm: &dyn Communicator,
) -> Result<BTreeMap<String, String>> {
    let bug = |error: serde_json::Error| Error::bug(format!("cannot tell digests: {error}"));
    if comm.rank() > 0 {
        return serde_json::from_slice(&comm.broadcast(0, Vec::new())?).map_err(bug);
    }
    let mut kept = SourceDigests::read(store.folder(), model)?;
    let known = kept.by_name();
    let unknown: Vec<&str> = model
        .files
        .tensors()
        .map(|tensor| tensor.name.as_str())
        .filter(|name| !known.contains_key(*name))
        .collect();
    if !unknown.is_empty() {
        let read = |name: &&str| {
            let digest = sha256(files.tensor(name)?.bytes);
            files.release(name);
            Ok(((*name).to_owned(), digest))
        };
        kept.add(model, unknown.par_iter().map(read).collect::<Result<_>>()?);
        kept.write(store.folder(), model, &unique())?;
    }
    let all = kept.by_name();
    if comm.size() > 1 {
        comm.broadcast(0, serde_json::to_vec(&all).map_err(bug)?)?;
    }
    Ok(all)
}
