//! A disk that is soon full.

use std::path::PathBuf;
use std::process::Command;

/// A small file system, in memory.
pub struct Tiny(PathBuf);

impl Tiny {
    /// Mounts it over a directory. `options` are those of tmpfs, such as `size=64k`. Nothing where this is not allowed.
    pub fn mount(path: PathBuf, options: &str) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Tiny(path));
        }
        eprintln!("SKIPPED: mounting is not allowed here");
        None
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
