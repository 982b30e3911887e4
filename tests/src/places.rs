//! Where the repository keeps what tests read.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests package lies in the repository")
        .to_path_buf()
}

/// A path of the repository that must be there.
pub fn existing(relative: &str) -> PathBuf {
    let path = root().join(relative);
    assert!(path.exists(), "{relative} is missing from the repository");
    path
}

/// A trained example model.
pub fn example_model(name: &str) -> PathBuf {
    existing(&format!("examples/models/{name}"))
}

/// The dense one of them.
pub fn tiny_llama() -> PathBuf {
    example_model("tiny-llama")
}

/// Calibration token ids, `[64, 256]`.
pub fn calibration_ids() -> PathBuf {
    existing("examples/data/calib_tokens.npy")
}

/// Held-out token ids, flat.
pub fn evaluation_ids() -> PathBuf {
    existing("examples/data/eval_tokens.npy")
}

/// A folder or file of goldens.
pub fn golden(relative: &str) -> PathBuf {
    existing(&format!("tests/golden/{relative}"))
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> serde_json::Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{} is not JSON: {e}", path.display()))
}
