//! Final hidden states of the unquantized model, kept in a file so that candidates need not run it again.
//!
//! They are kept instead of logits: `hidden_size` numbers a token instead of `vocabulary`, and the logits follow from
//! them to the bit.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use qlaunch_shared::checkpoint::{Header, Layout, PlannedTensor, read_header};
use qlaunch_shared::{Error, Result};

use crate::ops::Backend;
use crate::tensor::host::{Elements, HostTensor, TensorView};
use crate::tokens::Samples;

const TENSOR: &str = "hidden";
const DIGEST: &str = "tokens_sha256";
const LENGTH: &str = "sequence_length";
/// Mean negative log-likelihood of the tokens under the model, in nats.
const LOSS: &str = "nll";

/// Writes hidden states, batch after batch, with the digest of the tokens that they belong to and, of final ones, the mean
/// loss that they come to.
///
/// # Errors
/// The file cannot be written.
pub fn keep_reference<B: Backend>(
    path: &Path,
    backend: &B,
    samples: &Samples,
    (hidden, nll): (&[B::Tensor], Option<f64>),
) -> Result<()> {
    let Some(first) = hidden.first() else { return Err(Error::bug("there is nothing to keep")) };
    let planned = PlannedTensor {
        name: TENSOR.to_owned(),
        dtype: backend.dtype(first),
        shape: vec![samples.ids.len(), backend.shape(first)[1]],
    };
    let mut metadata = BTreeMap::from([
        (DIGEST.to_owned(), samples.digest()),
        (LENGTH.to_owned(), samples.length.to_string()),
    ]);
    metadata.extend(nll.map(|nll| (LOSS.to_owned(), nll.to_string())));
    let layout = Layout::plan(&[planned], u64::MAX, &metadata)?;
    let failed = |e: std::io::Error| Error::io("write the reference", path, &e);
    let part = path.with_extension("partial");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&part).map_err(failed)?);
    file.write_all(&layout.shards[0].header).map_err(failed)?;
    for batch in hidden {
        backend.inspect(batch, &mut |view| file.write_all(&bytes_of(view)).map_err(failed))?;
    }
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}

fn bytes_of(view: TensorView<'_>) -> Vec<u8> {
    match view.elements() {
        Elements::F32(values) => values.iter().copied().flat_map(f32::to_le_bytes).collect(),
        Elements::BF16(values) => values.iter().copied().flat_map(bf16::to_le_bytes).collect(),
        Elements::F16(values) => values.iter().copied().flat_map(f16::to_le_bytes).collect(),
    }
}

/// Kept hidden states.
pub struct KeptReference {
    path: PathBuf,
    header: Header,
}

impl KeptReference {
    /// Opens a file of [`keep_reference`] and checks that it belongs to these samples.
    ///
    /// # Errors
    /// The file is missing, broken, or of other tokens.
    pub fn open(path: &Path, samples: &Samples) -> Result<Self> {
        let header = read_header(path)?;
        let is_same = header.metadata.get(DIGEST) == Some(&samples.digest())
            && header.metadata.get(LENGTH) == Some(&samples.length.to_string());
        if !is_same
            || header.tensors.first().is_none_or(|tensor| tensor.name != TENSOR || tensor.shape.len() != 2)
        {
            return Err(Error::input("the kept reference is of other tokens")
                .at(path)
                .hint("run the sweep again with `--fresh`"));
        }
        Ok(Self { path: path.to_path_buf(), header })
    }

    /// The perplexity that they come to; none where the file is of a version that did not keep it.
    pub fn perplexity(&self) -> Option<f64> {
        let nll: f64 = self.header.metadata.get(LOSS)?.parse().ok()?;
        Some(nll.exp())
    }

    /// The hidden states, cut into batches of `tokens` tokens each.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn batches<B: Backend>(&self, backend: &B, tokens: usize) -> Result<Vec<B::Tensor>> {
        use std::io::{Read, Seek, SeekFrom};
        let tensor = &self.header.tensors[0];
        let (rows, width) = (tensor.shape[0], tensor.shape[1]);
        let failed = |e: std::io::Error| Error::io("read the reference", &self.path, &e);
        let mut file = std::fs::File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(tensor.offset)).map_err(failed)?;
        let mut batches = Vec::with_capacity(rows.div_ceil(tokens));
        let mut left = rows;
        while left > 0 {
            let now = left.min(tokens);
            let mut bytes = vec![0u8; now * width * tensor.dtype.size()];
            file.read_exact(&mut bytes).map_err(failed)?;
            batches.push(backend.adopt(HostTensor::from_bytes(tensor.dtype, [now, width], &bytes)?)?);
            left -= now;
        }
        Ok(batches)
    }
}
