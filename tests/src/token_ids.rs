//! Token id files: NumPy arrays of int32.

use std::path::Path;

/// Writes ids as a `.npy` file of shape `[rows, columns]`; panics unless `ids` fills it.
pub fn write_npy(path: &Path, ids: &[i32], rows: usize, columns: usize) {
    assert_eq!(ids.len(), rows * columns, "the ids do not fill [{rows}, {columns}]");
    let mut header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic, version, length and header together are a multiple of 64 bytes and end with a newline.
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).expect("a short header").to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
