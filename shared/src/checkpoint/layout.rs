//! Where every tensor of a checkpoint will lie, settled before the first byte is written.
//!
//! Knowing the layout beforehand makes the planned size exact, lets layers be written in any order and by several
//! threads, and shows a full disk before hours of work are spent.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::files::{INDEX, SINGLE};
use super::header::RawEntry;
use super::{DType, TensorEntry, elements};
use crate::{Error, Result};

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Full name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, row-major.
    pub shape: Vec<usize>,
}

impl PlannedTensor {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        elements(&self.shape).unwrap_or(u64::MAX).saturating_mul(self.dtype.size() as u64)
    }
}

/// One safetensors file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub file: String,
    /// Its first bytes: header length, JSON, padding.
    pub header: Vec<u8>,
    /// Its tensors with offsets from the start of the file.
    pub tensors: Vec<TensorEntry>,
    /// Its length in bytes.
    pub bytes: u64,
    /// Which of the planned groups of tensors it belongs to.
    pub group: usize,
}

/// All weight files of a checkpoint to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The files.
    pub shards: Vec<Shard>,
    /// Name and text of the index, where there are several files.
    pub index: Option<(String, String)>,
}

impl Layout {
    /// Distributes tensors, in the given order, over files of at most `shard_bytes` of tensor data each; a tensor
    /// larger than that gets a file of its own.
    ///
    /// # Errors
    /// Two tensors have the same name, or a header cannot be written.
    pub fn plan(
        tensors: &[PlannedTensor],
        shard_bytes: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        Self::plan_groups(&[tensors.to_vec()], shard_bytes, metadata)
    }

    /// The same for groups of tensors, none of which shares a file with another. The bytes of a group's
    /// files do not depend on the other groups.
    ///
    /// # Errors
    /// As [`Layout::plan`].
    pub fn plan_groups(
        groups: &[Vec<PlannedTensor>],
        shard_bytes: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut files: Vec<(usize, Vec<&PlannedTensor>)> = Vec::new();
        for (group, tensors) in groups.iter().enumerate() {
            let mut filled = None;
            for tensor in tensors {
                let sum = filled.unwrap_or(0u64).saturating_add(tensor.bytes());
                filled = match files.last_mut().filter(|_| filled.is_some()) {
                    Some((_, file)) if sum <= shard_bytes || filled == Some(0) => {
                        file.push(tensor);
                        Some(sum)
                    }
                    _ => {
                        files.push((group, vec![tensor]));
                        Some(tensor.bytes())
                    }
                };
            }
        }
        if files.is_empty() {
            files.push((0, Vec::new()));
        }
        let count = files.len();
        let name = |i: usize| match count {
            1 => SINGLE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let shards: Vec<Shard> = files
            .iter()
            .enumerate()
            .map(|(i, (group, tensors))| shard((name(i), *group), tensors, metadata))
            .collect::<Result<_>>()?;
        let mut names: Vec<&str> =
            shards.iter().flat_map(|shard| &shard.tensors).map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::bug("a tensor is planned twice").key(twice[0]));
        }
        let index = (count > 1).then(|| (INDEX.to_owned(), index(&shards)));
        Ok(Self { shards, index })
    }

    /// Bytes of all weight files, headers included.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// The files of one of the planned groups of tensors.
    pub fn of_group(&self, group: usize) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(move |shard| shard.group == group)
    }

    /// The file and place of a tensor.
    pub fn find(&self, name: &str) -> Option<(&Shard, &TensorEntry)> {
        self.shards.iter().find_map(|shard| Some((shard, shard.tensors.iter().find(|t| t.name == name)?)))
    }
}

/// Lays out one file: widest types first, then by name, so that every tensor is aligned to its element.
fn shard(
    (file, group): (String, usize),
    tensors: &[&PlannedTensor],
    metadata: &BTreeMap<String, String>,
) -> Result<Shard> {
    let mut sorted = tensors.to_vec();
    sorted.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(&b.name)));
    let mut json = Map::new();
    json.insert("__metadata__".to_owned(), json!(metadata));
    let mut end = 0u64;
    let mut entries = Vec::with_capacity(sorted.len());
    for tensor in sorted {
        let begin = end;
        end = end.saturating_add(tensor.bytes());
        let raw = RawEntry { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: [begin, end] };
        let value =
            serde_json::to_value(raw).map_err(|e| Error::bug(format!("cannot write a header: {e}")))?;
        json.insert(tensor.name.clone(), value);
        entries.push((tensor, begin));
    }
    let mut text =
        serde_json::to_vec(&json).map_err(|e| Error::bug(format!("cannot write a header: {e}")))?;
    // Readers map tensors in place: data starts at a multiple of the widest element.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(&text);
    let start = header.len() as u64;
    let tensors = entries.into_iter().map(|(tensor, begin)| TensorEntry {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        offset: start + begin,
        length: tensor.bytes(),
    });
    Ok(Shard { file, tensors: tensors.collect(), bytes: start + end, header, group })
}

fn index(shards: &[Shard]) -> String {
    let total: u64 = shards.iter().flat_map(|shard| &shard.tensors).map(|tensor| tensor.length).sum();
    let map: BTreeMap<&str, Value> = shards
        .iter()
        .flat_map(|shard| shard.tensors.iter().map(|tensor| (tensor.name.as_str(), json!(shard.file))))
        .collect();
    format!("{:#}\n", json!({ "metadata": { "total_size": total }, "weight_map": map }))
}

#[cfg(test)]
mod tests {
    use super::super::{CheckpointFiles, read_header};
    use super::*;

    fn tensors() -> Vec<PlannedTensor> {
        let tensor = |name: &str, dtype, shape: &[usize]| PlannedTensor {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        };
        vec![
            tensor("b.weight", DType::U8, &[3, 5]),
            tensor("a.weight", DType::BF16, &[7]),
            tensor("a.scale", DType::F32, &[]),
        ]
    }

    fn write(layout: &Layout, folder: &std::path::Path) {
        for shard in &layout.shards {
            let mut bytes = shard.header.clone();
            bytes.resize(shard.bytes as usize, 0);
            std::fs::write(folder.join(&shard.file), bytes).unwrap();
        }
        if let Some((name, text)) = &layout.index {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn one_file_reads_back_as_planned() {
        let folder = tempfile::tempdir().unwrap();
        let layout =
            Layout::plan(&tensors(), 1000, &BTreeMap::from([("format".into(), "pt".into())])).unwrap();
        assert_eq!(layout.index, None);
        write(&layout, folder.path());
        let header = read_header(&folder.path().join(SINGLE)).unwrap();
        assert_eq!(header.tensors, layout.shards[0].tensors);
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(header.file_length, layout.bytes());
        assert!(header.tensors.iter().all(|t| t.offset % t.dtype.size() as u64 == 0));
    }

    #[test]
    fn several_files_come_with_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::plan(&tensors(), 16, &BTreeMap::new()).unwrap();
        assert_eq!(layout.shards.len(), 3);
        write(&layout, folder.path());
        let files = CheckpointFiles::open(folder.path()).unwrap();
        assert_eq!(files.bytes(), layout.bytes());
        assert_eq!(files.tensor("a.weight").unwrap().shape, [7]);
    }

    #[test]
    fn groups_share_no_file_and_do_not_depend_on_each_other() {
        let group = |tensors: &[PlannedTensor]| tensors.to_vec();
        let (first, second) = (group(&tensors()[..1]), group(&tensors()[1..]));
        let both = Layout::plan_groups(&[first, second.clone()], 16, &BTreeMap::new()).unwrap();
        assert_eq!(both.shards.iter().map(|shard| shard.group).collect::<Vec<_>>(), [0, 1, 1]);
        let alone = Layout::plan_groups(&[second], 16, &BTreeMap::new()).unwrap();
        for (own, with_others) in alone.shards.iter().zip(&both.shards[1..]) {
            assert_eq!((&own.header, &own.tensors), (&with_others.header, &with_others.tensors));
        }
        let empty = Layout::plan_groups(&[Vec::new(), tensors()], 1000, &BTreeMap::new()).unwrap();
        assert_eq!(empty.shards.iter().map(|shard| shard.group).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn the_same_name_twice_is_refused() {
        let twice = [tensors()[0].clone(), tensors()[0].clone()];
        assert!(Layout::plan(&twice, 1000, &BTreeMap::new()).is_err());
    }
}
