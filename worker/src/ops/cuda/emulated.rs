//! A GPU for tests: this host's, or the emulated one of `worker/kernels/emulator`.

use std::path::Path;
use std::process::Command;

use super::load;
use crate::libraries::Places;

/// The libraries of this host's GPU, or those of the emulated one.
pub(crate) fn places() -> Places {
    let own = Places::gather();
    match load(&own) {
        Ok(()) => own,
        Err(why) => {
            assert!(std::env::var_os("QLAUNCH_REQUIRE_GPU").is_none(), "{why}");
            emulated()
        }
    }
}

/// Compiles the emulated GPU, once for all tests.
fn emulated() -> Places {
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap().join("emulated-gpu");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/emulator/build.sh");
    let output = Command::new(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let named = [("QLAUNCH_LIBCUDA", "libcuda.so.1"), ("QLAUNCH_LIBCUBLASLT", "libcublasLt.so.12")];
    let named = named.map(|(variable, file)| (variable.to_owned(), folder.join(file)));
    Places { named: named.to_vec(), ..Places::default() }
}
