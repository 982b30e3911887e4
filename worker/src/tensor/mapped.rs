//! Mapped safetensors files of a checkpoint: tensors are borrowed from the page cache, and given back when done.

use std::fs::File;
use std::sync::Arc;

use memmap2::Mmap;
use qlaunch_shared::checkpoint::{CheckpointFiles, Header, TensorEntry};
use qlaunch_shared::{Error, Result};

use super::DType;
use super::held::Pages;
use super::host::HostTensor;

/// A tensor where it lies in its file.
#[derive(Debug, Clone, Copy)]
pub struct Mapped<'a> {
    /// Element type.
    pub dtype: DType,
    /// Shape, row-major.
    pub shape: &'a [usize],
    /// Little-endian bytes; they may begin anywhere.
    pub bytes: &'a [u8],
}

/// All weight files of a checkpoint, mapped.
#[derive(Debug)]
pub struct MappedCheckpoint {
    files: CheckpointFiles,
    /// In the order of `files.headers`.
    maps: Vec<Arc<Mmap>>,
}

impl MappedCheckpoint {
    /// Maps the files whose headers were read.
    ///
    /// # Errors
    /// A file is gone, or no longer as long as when its header was read.
    pub fn open(files: CheckpointFiles) -> Result<Self> {
        let maps = files.headers.iter().map(map).collect::<Result<_>>()?;
        Ok(Self { files, maps })
    }

    fn place(&self, name: &str) -> Result<(&TensorEntry, &Arc<Mmap>)> {
        let tensor = self.files.tensor(name)?;
        let header = self.files.find(name).map(|(header, _)| header);
        let map = self
            .files
            .headers
            .iter()
            .zip(&self.maps)
            .find(|(other, _)| header.is_some_and(|header| std::ptr::eq(*other, header)));
        map.map(|(_, map)| (tensor, map)).ok_or_else(|| Error::bug("a tensor's file is not mapped").key(name))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<Mapped<'_>> {
        let (tensor, map) = self.place(name)?;
        let begin = tensor.offset as usize;
        let bytes = map
            .get(begin..begin + tensor.length as usize)
            .ok_or_else(|| Error::bug("a tensor ends outside its file").key(name))?;
        Ok(Mapped { dtype: tensor.dtype, shape: &tensor.shape, bytes })
    }

    /// The tensor of this name as the forward pass computes with it: where it lies in its file, or copied if it is not aligned
    /// there. Its pages are given back when nobody has it any more.
    ///
    /// # Errors
    /// There is none, or models do not compute in its type.
    pub fn hold(&self, name: &str) -> Result<HostTensor> {
        let (tensor, map) = self.place(name)?;
        let range = tensor.offset as usize..(tensor.offset + tensor.length) as usize;
        let pages = Pages::new(map, range);
        pages.populate();
        HostTensor::mapped(tensor.dtype, tensor.shape.clone(), pages)
    }

    /// Gives a tensor's pages back, so that resident memory stays at the tensors in use. Reading it again maps it again.
    pub fn release(&self, name: &str) {
        if let Ok((tensor, map)) = self.place(name) {
            let begin = tensor.offset as usize;
            drop(Pages::new(map, begin..begin + tensor.length as usize));
        }
    }
}

fn map(header: &Header) -> Result<Arc<Mmap>> {
    let failed = |e: std::io::Error| Error::io("map the weights", &header.path, &e);
    let file = File::open(&header.path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() != header.file_length {
        return Err(Error::input("the file changed while it was read")
            .at(&header.path)
            .hint("run the command again"));
    }
    // SAFETY: the map is read-only. That nobody truncates a model while it is read is the caller's side of the bargain,
    // as with every program that maps weights.
    unsafe { Mmap::map(&file) }.map(Arc::new).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qlaunch_shared::checkpoint::{Layout, PlannedTensor};

    use super::*;

    fn checkpoint(folder: &std::path::Path) -> MappedCheckpoint {
        let tensor = |name: &str, length| PlannedTensor {
            name: name.to_owned(),
            dtype: DType::U8,
            shape: vec![length],
        };
        let layout =
            Layout::plan(&[tensor("a", 3), tensor("b", 70_000)], u64::MAX, &BTreeMap::new()).unwrap();
        let shard = &layout.shards[0];
        let mut bytes = shard.header.clone();
        bytes.extend([1, 2, 3]);
        bytes.extend((0..70_000u32).map(|i| i as u8));
        std::fs::write(folder.join(&shard.file), bytes).unwrap();
        MappedCheckpoint::open(CheckpointFiles::open(folder).unwrap()).unwrap()
    }

    #[test]
    fn a_released_tensor_reads_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let mapped = checkpoint(folder.path());
        assert_eq!(mapped.tensor("a").unwrap().bytes, [1, 2, 3]);
        let before = mapped.tensor("b").unwrap().bytes.to_vec();
        mapped.release("b");
        assert_eq!(mapped.tensor("b").unwrap().bytes, before);
        assert_eq!(mapped.tensor("c").unwrap_err().place.key.as_deref(), Some("c"));
    }

    #[test]
    fn a_file_that_changed_since_its_header_was_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(checkpoint(folder.path()));
        let files = CheckpointFiles::open(folder.path()).unwrap();
        let path = folder.path().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(MappedCheckpoint::open(files).unwrap_err().message.contains("changed"));
    }
}
