//! Token ids from a NumPy file: a flat sequence, or one row a sample.

use std::path::Path;

use qlaunch_shared::{Error, Result};

/// Token ids of a `.npy` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Sides: `[tokens]` or `[samples, tokens]`.
    pub shape: Vec<usize>,
    /// Ids in row-major order.
    pub ids: Vec<i64>,
}

/// Reads a one- or two-dimensional `.npy` file of integers (format 1.0 to 3.0).
///
/// # Errors
/// The file is missing, truncated, of another element type, in column-major order or of more dimensions.
pub fn read(path: &Path) -> Result<Array> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read the token ids", path, &e))?;
    parse(&bytes).map_err(|message| {
        Error::input(message).at(path).hint("save token ids with `numpy.save(file, ids.astype('int32'))`")
    })
}

fn parse(bytes: &[u8]) -> Result<Array, String> {
    let version = *bytes.get(6).ok_or("not a NumPy file")?;
    if !bytes.starts_with(b"\x93NUMPY") || !(1..=3).contains(&version) {
        return Err("not a NumPy file".to_owned());
    }
    let (length, start) = match version {
        1 => (usize::from(u16::from_le_bytes(take(bytes, 8)?)), 10),
        _ => (u32::from_le_bytes(take(bytes, 8)?) as usize, 12),
    };
    let end = start + length;
    let header = bytes.get(start..end).ok_or("truncated in the header")?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is no text")?;
    if value_of(header, "fortran_order")?.starts_with("True") {
        return Err("the array is in column-major order".to_owned());
    }
    let shape = shape_of(value_of(header, "shape")?)?;
    let count = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side)).ok_or("the shape overflows")?;
    let data = &bytes[end..];
    let ids = match value_of(header, "descr")?.trim_start_matches(['\'', '"']).get(..3) {
        Some("<i4") => ids(data, count, |b| i64::from(i32::from_le_bytes(b))),
        Some("<u4") => ids(data, count, |b| i64::from(u32::from_le_bytes(b))),
        Some("<i2") => ids(data, count, |b| i64::from(i16::from_le_bytes(b))),
        Some("<u2") => ids(data, count, |b| i64::from(u16::from_le_bytes(b))),
        Some("<i8") => ids(data, count, i64::from_le_bytes),
        other => return Err(format!("the elements are `{}`, not integers", other.unwrap_or("?"))),
    }
    .ok_or_else(|| format!("truncated: the shape {shape:?} needs more than {} bytes", data.len()))?;
    Ok(Array { shape, ids })
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    let slice = bytes.get(at..at + N).ok_or("truncated in the header")?;
    slice.try_into().map_err(|_| "truncated in the header".to_owned())
}

/// The text behind a key of the header, which is a Python literal.
fn value_of<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let at = header.find(&format!("'{key}'")).ok_or_else(|| format!("the header has no `{key}`"))?;
    let rest = &header[at..];
    let colon = rest.find(':').ok_or_else(|| format!("the header has no value for `{key}`"))?;
    Ok(rest[colon + 1..].trim_start())
}

fn shape_of(text: &str) -> Result<Vec<usize>, String> {
    let inner =
        text.strip_prefix('(').and_then(|rest| rest.split(')').next()).ok_or("the shape is no tuple")?;
    let sides = inner.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<usize> = sides
        .map(|side| side.parse().map_err(|_| format!("`{side}` is no size")))
        .collect::<Result<_, _>>()?;
    match shape.len() {
        1 | 2 => Ok(shape),
        n => {
            Err(format!("the array has {n} dimensions: 1 (one text) or 2 (one row a sample) are understood"))
        }
    }
}

fn ids<const N: usize>(data: &[u8], count: usize, convert: fn([u8; N]) -> i64) -> Option<Vec<i64>> {
    let (chunks, _) = data.as_chunks::<N>();
    Some(chunks.get(..count)?.iter().map(|chunk| convert(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn rows_and_flat_sequences_are_read() {
        let data: Vec<u8> = [1i32, 2, 3, -4].iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(
            parse(&file("<i4", "(2, 2)", &data)).unwrap(),
            Array { shape: vec![2, 2], ids: vec![1, 2, 3, -4] }
        );
        assert_eq!(parse(&file("<i4", "(4,)", &data)).unwrap().shape, [4]);
        let wide: Vec<u8> = [70_000i64].iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(parse(&file("<i8", "(1,)", &wide)).unwrap().ids, [70_000]);
    }

    #[test]
    fn what_is_no_list_of_integers_is_refused_with_the_reason() {
        assert!(parse(b"hello").unwrap_err().contains("not a NumPy file"));
        assert!(parse(&file("<f4", "(1,)", &[0; 4])).unwrap_err().contains("not integers"));
        assert!(parse(&file("<i4", "(2,)", &[0; 4])).unwrap_err().contains("truncated"));
        assert!(parse(&file("<i4", "(1, 1, 1)", &[0; 4])).unwrap_err().contains("3 dimensions"));
    }
}
