//! A small file system of its own, to be filled or made read-only.

use std::path::Path;
use std::process::Command;

/// A tmpfs that is gone when dropped.
#[derive(Debug)]
pub struct TinyDisk {
    point: tempfile::TempDir,
}

impl TinyDisk {
    /// Mounts one of so many MiB; `None` where this user must not mount.
    pub fn mount(megabytes: usize) -> Option<Self> {
        let point = tempfile::tempdir().expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "qlaunch-test"])
            .arg(point.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self { point })
    }

    /// Mounts it again with other options: `size=20m`, `ro`.
    pub fn remount(&self, options: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{options}")]).arg(self.point.path());
        assert!(command.status().is_ok_and(|status| status.success()), "remounted with {options}");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.point.path()
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let left = Command::new("umount").arg(self.point.path()).status();
        assert!(
            std::thread::panicking() || left.is_ok_and(|status| status.success()),
            "the tiny disk stays mounted"
        );
    }
}
