//! Large messages on disk.
//!
//! A body that nginx has put into a temporary file (because it was larger than `client_body_buffer_size`) stays on disk,
//! and the zone holds its path: it costs the zone a few blocks, and is sent with sendfile where nginx does that. The file
//! is moved into a directory beside it, `push-TOKEN` in `client_body_temp_path`, where TOKEN names the life of the zone, and
//! is removed when the message goes. What a killed nginx has left behind is removed when a worker of the next one comes there;
//! a lock that all workers of a zone share, whoever of them has put something there, tells whether a directory is still in
//! use, and what is written in it, whether their master still runs: an upgrade of the binary that may be taken back begins
//! with sending the old workers away. What a killed worker has left there is for [`crate::leftovers`]. With a snapshot the
//! zone's life goes on after a restart, and the directory with it.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use comet::faults;

use crate::nginx::log::{self, Level};
use crate::nginx::request::TemporaryFile;
use crate::nginx::{clock, process};

const PREFIX: &str = "push-";
const LOCK: &str = "lock";
/// Bytes of a lock that are read: more than there can be.
const SIGNATURE: u64 = 64;

thread_local! {
    /// Directories in use by this worker, with the lock that says so.
    static DIRECTORIES: RefCell<Vec<(PathBuf, File)>> = const { RefCell::new(Vec::new()) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Files of dead workers, in directories that this worker has come to.
    static FOUND: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
}

/// Takes a temporary file over: moves it out of nginx's reach, or copies it if it is not ours alone, and returns where it is
/// now, under so many names: each is removed by itself.
///
/// # Errors
///
/// The system's error; the file is where it was, or nowhere.
pub fn claim(file: &TemporaryFile<'_>, token: u64, count: usize) -> io::Result<Vec<PathBuf>> {
    let directory = Path::new(OsStr::from_bytes(file.directory)).join(name_of(token));
    enter(&directory)?;
    let mut paths = vec![new_name(&directory)];
    faults::point("move file");
    if let Some(first) = paths.first() {
        take(file, first)?;
    }
    for _ in 1..count {
        faults::point("link file");
        let path = new_name(&directory);
        let linked = paths.first().map_or(Ok(()), |first| fs::hard_link(first, &path));
        if let Err(error) = linked {
            paths.iter().for_each(|path| remove(path.as_os_str().as_bytes()));
            return Err(error);
        }
        paths.push(path);
    }
    Ok(paths)
}

/// Has a temporary file, or a copy of it, under this name.
fn take(file: &TemporaryFile<'_>, path: &Path) -> io::Result<()> {
    let there = Path::new(OsStr::from_bytes(file.path));
    let known = file.metadata()?;
    if known.len() != file.len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // A name that nginx has removed may be another file's by now.
    let is_it = |found: fs::Metadata| (found.dev(), found.ino()) == (known.dev(), known.ino());
    if file.may_move && fs::symlink_metadata(there).is_ok_and(is_it) {
        return fs::rename(there, path);
    }
    let descriptor = file.descriptor.ok_or(io::ErrorKind::NotFound)?;
    let open = File::from(descriptor.try_clone_to_owned()?);
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Others read at places of their own (`pread`, `sendfile`), and not where the descriptor is.
    let mut open = &open;
    let copied = open.rewind().and_then(|()| io::copy(&mut open.take(file.len), &mut copy));
    match copied {
        Ok(len) if len == file.len => Ok(()),
        copied => {
            let _ = fs::remove_file(path);
            Err(copied.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        }
    }
}

/// The directory for files of this life of the zone.
fn name_of(token: u64) -> String {
    format!("{PREFIX}{token:016x}")
}

/// A name that no file has.
fn new_name(directory: &Path) -> PathBuf {
    loop {
        let count = COUNT.replace(COUNT.get().wrapping_add(1));
        let mono = clock::now().mono;
        let path = directory.join(format!("{}-{mono:x}-{count:x}", std::process::id()));
        // After a reboot, pids and that clock repeat, and files of messages that were restored are still there.
        if !path.exists() {
            return path;
        }
    }
}

/// Whether a message's file is one of this life of the zone, and there in its full length. From then on its directory is
/// known to be in use: by the master, if that asks, and by the workers that it starts.
pub fn adopt(path: &[u8], len: u64, token: u64) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    let Some(directory) = path.parent() else { return false };
    let is_ours = directory.file_name().is_some_and(|name| name == name_of(token).as_str());
    let is_there =
        || fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == len);
    is_ours && path.is_absolute() && is_there() && hold(directory)
}

/// Takes the lock of a directory that is there.
fn hold(directory: &Path) -> bool {
    DIRECTORIES.with_borrow_mut(|known| {
        if known.iter().any(|(path, _)| path == directory) {
            return true;
        }
        let lock = lock_options().open(directory.join(LOCK));
        // Who has it alone is removing the directory; this may be under the zone's lock.
        let held = lock.ok().filter(|lock| lock.try_lock_shared().is_ok());
        let is_held = held.is_some();
        known.extend(held.map(|lock| (directory.to_path_buf(), lock)));
        is_held
    })
}

/// In the master at a reload: those who have put files into these directories for temporary files may be about to go. Tells
/// which are ours, and there.
pub fn hold_all<'a>(directories: impl IntoIterator<Item = &'a [u8]>, token: u64) -> Vec<PathBuf> {
    let ours = |directory| Path::new(OsStr::from_bytes(directory)).join(name_of(token));
    directories.into_iter().map(ours).filter(|directory| hold(directory)).collect()
}

/// At the start of a worker: those who have put files into these directories may be gone, and a master before this one with
/// them.
pub fn begin<'a>(directories: impl IntoIterator<Item = &'a [u8]>, token: u64) {
    let held = hold_all(directories, token);
    DIRECTORIES.with_borrow(|known| known.iter().for_each(|(_, lock)| sign(lock)));
    held.iter().for_each(|directory| tidy(directory));
}

/// Opens a message's file for sending. Nothing if it is not there.
///
/// # Errors
///
/// The system's error, if that may pass: there are no descriptors or no memory left. What will not pass is as good as gone.
pub fn open(path: &[u8]) -> io::Result<Option<File>> {
    let path = Path::new(OsStr::from_bytes(path));
    // Another worker has made it, maybe after this one has started.
    path.parent().map(hold);
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
            _ => Ok(None),
        },
    }
}

/// Removes the file of a message that has gone.
pub fn remove(path: &[u8]) {
    let removed = fs::remove_file(OsStr::from_bytes(path));
    if let Err(error) = removed.or_else(ignore_missing) {
        let path = String::from_utf8_lossy(path);
        log::cycle(
            Level::Warn,
            &format!("push: cannot remove the file of a message, {path}: {error}"),
        );
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

/// Makes sure that the directory is there and known to be in use.
fn enter(directory: &Path) -> io::Result<()> {
    DIRECTORIES.with_borrow_mut(|known| {
        // Programs that clean up may have removed it.
        known.retain(|(path, _)| path != directory || path.join(LOCK).exists());
        if known.iter().any(|(path, _)| path == directory) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let lock = lock_options().create(true).truncate(false).open(directory.join(LOCK))?;
        lock.lock_shared()?;
        sign(&lock);
        known.push((directory.to_path_buf(), lock));
        tidy(directory);
        Ok(())
    })
}

/// Removes what no nginx needs any more, and finds what may have no message ([`take_found`]). In a worker.
fn tidy(directory: &Path) {
    remove_abandoned(directory);
    FOUND.with_borrow_mut(|found| found.extend(files_of_the_dead(directory)));
}

/// Files of dead workers that were found since the last call. Messages may be in them.
pub fn take_found() -> Vec<PathBuf> {
    FOUND.take()
}

/// The files in a directory of ours that no living process has made: their names begin with its pid.
fn files_of_the_dead(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_left = |name: &OsStr| {
        let pid = name.to_str().and_then(|name| name.split_once('-')?.0.parse().ok());
        pid.is_some_and(|pid| !process::is_alive(pid))
    };
    entries.filter(|entry| is_left(&entry.file_name())).map(|entry| entry.path()).collect()
}

/// Others may be able to write to the directory around ours, and a pipe or a link in place of a lock is none of ours: who
/// opens a pipe waits.
fn lock_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Writes down whose workers have locked it, as a process and when that has started: all of them write the same.
fn sign(lock: &File) {
    let keeper = process::keeper();
    let mut text = keeper.to_string();
    if let Some(started) = process::started(keeper) {
        text += &format!(" {started}");
    }
    // Without it, the directory is in use as long as there are workers. Who dies in between leaves no less than this.
    let written = lock.write_all_at(text.as_bytes(), 0);
    let _ = written.and_then(|()| lock.set_len(text.len() as u64));
}

/// Whether the workers that have locked it have gone, but not for good: another master than ours, theirs, still runs.
fn is_kept(lock: &File) -> bool {
    let mut text = String::new();
    if lock.take(SIGNATURE).read_to_string(&mut text).is_err() {
        return false;
    }
    let mut numbers = text.split(' ');
    let Some(keeper) = numbers.next().and_then(|pid| pid.parse().ok()) else { return false };
    let started: Option<u64> = numbers.next().and_then(|started| started.parse().ok());
    // Another process may have its number by now.
    let is_it =
        || started.is_none() || process::started(keeper).is_none_or(|it| Some(it) == started);
    keeper != process::keeper() && !process::has_ended(keeper) && is_it()
}

/// Removes the directories of zones whose workers are all gone, and their master with them.
fn remove_abandoned(own: &Path) {
    let Some(parent) = own.parent() else { return };
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !ours || path == own {
            continue;
        }
        let Ok(lock) = lock_options().read(true).open(path.join(LOCK)) else { continue };
        let is_ours = lock.metadata().is_ok_and(|lock| lock.is_file());
        if is_ours && lock.try_lock().is_ok() && !is_kept(&lock) {
            if let Err(error) = fs::remove_dir_all(&path) {
                let path = path.display();
                log::cycle(
                    Level::Warn,
                    &format!("push: cannot remove what was left in {path}: {error}"),
                );
            }
        }
    }
}
