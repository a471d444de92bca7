//! The lock on a snapshot, `PATH.lock`: of all who have the same configuration, the one that holds it writes `PATH`.
//!
//! nginx closes its sockets at once when it is to quit, and ends with its last client. Meanwhile another one may start.
//!
//! The kernel ends the lock with the process, whatever that died of. The file goes with who holds it, or another file takes its
//! name: so a lock counts only as long as the name leads to the file that is locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{is_at, with_suffix};

/// A lock that this process holds. Dropping it unlocks the file unless another process has inherited it, and leaves the file
/// where it is.
pub struct Lock {
    path: PathBuf,
    file: File,
    /// The one before it is kept under another name.
    has_displaced: bool,
}

impl Lock {
    /// Locks a snapshot, if nobody else has.
    pub fn try_new(snapshot: &Path) -> Result<Self, TryLockError> {
        let path = path_for(snapshot);
        loop {
            let file = open(&path).map_err(TryLockError::Error)?;
            file.try_lock()?;
            let lock = Lock { path: path.clone(), file, has_displaced: false };
            // Who had it may have removed it between the two.
            if lock.counts() {
                return Ok(lock);
            }
        }
    }

    /// Locks a snapshot that another process has locked; then that lock counts no more. With `for_now` it counts again once
    /// this one has been released.
    pub fn take_over(snapshot: &Path, for_now: bool) -> Result<Self, TryLockError> {
        let path = path_for(snapshot);
        let new = with_suffix(&path, ".new");
        // As with what is written, what is there is not ours to follow or fill.
        let _ = fs::remove_file(&new);
        let file = options().create_new(true).open(&new).map_err(TryLockError::Error)?;
        file.try_lock()?;
        let old = displaced(&path);
        let _ = fs::remove_file(&old);
        let has_displaced = for_now && fs::hard_link(&path, &old).is_ok();
        fs::rename(&new, &path).map_err(TryLockError::Error)?;
        Ok(Lock { path, file, has_displaced })
    }

    /// Whether it is the lock on this snapshot.
    pub fn is_on(&self, snapshot: &Path) -> bool {
        self.path == path_for(snapshot)
    }

    /// Whether nobody has taken over.
    pub fn counts(&self) -> bool {
        is_at(&self.file, &self.path).unwrap_or(false)
    }

    /// Whether somebody has taken over for now.
    pub fn is_displaced(&self) -> bool {
        is_at(&self.file, &displaced(&self.path)).unwrap_or(false)
    }

    /// Whether the process still runs whose lock this one has displaced for now.
    pub fn has_predecessor(&self) -> bool {
        self.has_displaced && is_held(&displaced(&self.path))
    }

    /// Unlocks it, and removes the file, or has the lock count again that this one has displaced.
    pub fn release(self) {
        let old = displaced(&self.path);
        // An empty file that stays does no harm.
        let _ = match self.counts() {
            true if self.has_predecessor() => fs::rename(&old, &self.path),
            true => {
                if self.has_displaced {
                    let _ = fs::remove_file(&old);
                }
                fs::remove_file(&self.path)
            }
            false if self.is_displaced() => fs::remove_file(&old),
            false => Ok(()),
        };
    }
}

/// Where a lock is while another one counts in its place.
fn displaced(path: &Path) -> PathBuf {
    with_suffix(path, ".old")
}

fn is_held(path: &Path) -> bool {
    let file = options().open(path);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Where the lock on a snapshot is.
pub fn path_for(snapshot: &Path) -> PathBuf {
    with_suffix(snapshot, ".lock")
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // What is behind a link is not ours, and a pipe would keep nginx waiting.
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn open(path: &Path) -> io::Result<File> {
    let file = options().create(true).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > 0 {
        return Err(io::Error::other("not an empty file"));
    }
    Ok(file)
}
