//! The file in which channels and messages outlive a restart (`push_snapshot`).
//!
//! The master writes it when all workers have gone, and takes it back when nginx starts: the file goes then, so that what was
//! read, deleted or expired since cannot come back later. Whatever is wrong with it, nginx starts.
//!
//! A start can still end after that: nginx has no handlers for signals yet, and no pid file, and an end there writes nothing. So
//! the file, which the master has renamed to `PATH.taken` and holds open, goes with the first worker that runs, for only workers
//! change anything. A worker may have no rights to remove it, but it can empty what is open; the master removes an empty file
//! at the next reload or at its end, and a start takes nothing from it.
//!
//! Bodies in files stay where they are ([`spool`]); the snapshot has their paths.
//!
//! It is taken back only when nginx has its sockets (`init_module`). That another nginx has given them up does not mean that it
//! has written the snapshot: told to quit, it closes them at once, and it writes when its last client has gone. So the
//! snapshot is whose [`Lock`] counts, from before it is taken back until after it was written, and a start waits for it.

mod lock;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use comet::zone::{Remaining, Restored, Saved, Snapshot};

use crate::nginx::log::{self, Level};
use crate::nginx::zone::{NewZone, SharedZone};
use crate::nginx::{clock, process};
use crate::spool;
use lock::Lock;

/// For how long a start waits for another nginx to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(20);

thread_local! {
    /// What this nginx has restored. Workers inherit it.
    static TAKEN: RefCell<Option<Taken>> = const { RefCell::new(None) };
    /// The lock on this nginx's snapshot. Workers inherit it, and close it.
    static LOCK: RefCell<Option<Lock>> = const { RefCell::new(None) };
}

/// Takes possession of the snapshot, and takes channels and messages back into a new zone. In the master.
///
/// In an upgrade of the binary, the nginx that still runs is the one that has started this one, and does not end before it.
pub fn begin(path: &Path, new: NewZone, is_upgrade: bool) {
    give_up();
    let mut lock = Lock::try_new(path);
    if is_refused(&lock) && !is_upgrade {
        lock = await_lock(path);
        // Whoever was waited for may have given ids until now.
        new.begin_at(clock::now());
    }
    let is_in_use = is_refused(&lock);
    if is_in_use {
        lock = Lock::take_over(path, is_upgrade);
    }
    hold(path, lock);
    if is_in_use && !is_upgrade {
        log::cycle(
            Level::Error,
            &format!(
                "push: another nginx still uses {} after {} seconds; this one begins without its messages, and it does not \
                 save them any more",
                path.display(),
                PATIENCE.as_secs()
            ),
        );
        return;
    }
    restore(path, new);
}

fn is_refused(lock: &Result<Lock, TryLockError>) -> bool {
    matches!(lock, Err(TryLockError::WouldBlock))
}

fn await_lock(path: &Path) -> Result<Lock, TryLockError> {
    log::cycle(
        Level::Notice,
        &format!(
            "push: waiting for another nginx, which still ends, to save its messages to {}",
            path.display()
        ),
    );
    let begin = Instant::now();
    loop {
        process::pause(INTERVAL);
        let lock = Lock::try_new(path);
        if !is_refused(&lock) || begin.elapsed() > PATIENCE {
            return lock;
        }
    }
}

/// After a reload, possession of the snapshot goes on, or begins. Nothing is taken back. In the master.
pub fn go_on(path: &Path) {
    let is_held = LOCK
        .with_borrow(|lock| lock.as_ref().is_some_and(|lock| lock.is_on(path) && lock.counts()));
    if !is_held {
        // Before another one is taken: it may be the same file by another name.
        give_up();
        hold(path, Lock::try_new(path));
    }
}

/// Keeps a lock, or tells that there is none.
fn hold(path: &Path, lock: Result<Lock, TryLockError>) {
    match lock {
        Ok(lock) => LOCK.set(Some(lock)),
        Err(TryLockError::WouldBlock) => log::cycle(
            Level::Error,
            &format!(
                "push: another nginx uses {}; unless it ends first, messages will be lost when this one ends",
                path.display()
            ),
        ),
        Err(TryLockError::Error(error)) => complain_of_lock(path, &error),
    }
}

/// This nginx has no snapshot, or has no more to do with it. In the master.
pub fn give_up() {
    if let Some(lock) = LOCK.take() {
        lock.release();
    }
}

/// The lock is the master's: it must end with the master, also if workers outlive it. In all other processes.
pub fn leave_to_master() {
    drop(LOCK.take());
}

/// Tells beforehand what would be wrong, and changes nothing.
pub fn check(path: &Path) {
    let Some(directory) = path.parent() else { return };
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => complain_of_lock(path, &io::Error::from_raw_os_error(libc::ENOTDIR)),
        Err(error) => complain_of_lock(path, &error),
    }
}

fn complain_of_lock(path: &Path, error: &io::Error) {
    let lock = lock::path_for(path);
    // If that is there, so is the directory, and the snapshot may well be written.
    let (cannot, outcome) = match fs::symlink_metadata(&lock) {
        Ok(_) => ("use", "nothing keeps another nginx from using the snapshot too"),
        Err(_) => ("create", "messages will be lost when nginx ends"),
    };
    log::cycle(
        Level::Error,
        &format!(
            "push: \"push_snapshot\" {}: cannot {cannot} {}: {error}; {outcome}",
            path.display(),
            lock.display()
        ),
    );
}

/// A snapshot that was restored. It is spent, and empty, once a worker runs.
struct Taken {
    path: PathBuf,
    file: File,
}

impl Taken {
    fn open(path: &Path) -> io::Result<Self> {
        // What is behind a link is not ours to empty.
        let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        Ok(Taken { path: path.to_path_buf(), file })
    }

    fn is_spent(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.len() == 0)
    }

    /// Removes it, unless another file has its name by now: that of another nginx, after an upgrade of the binary.
    fn remove(&self) -> io::Result<()> {
        match is_at(&self.file, &self.path)? {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }
}

/// Whether a name is that of an open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let id = |file: fs::Metadata| (file.dev(), file.ino());
    let open = file.metadata().map(id)?;
    Ok(fs::symlink_metadata(path).map(id).is_ok_and(|named| named == open))
}

/// A worker runs, and from now on the messages change: what was restored must not come back.
pub fn spend() {
    let Some(taken) = TAKEN.take() else { return };
    // Who is not allowed to remove it leaves it empty to the master.
    let emptied = taken.file.set_len(0);
    // So that it is empty after a crash of the system, too, under whatever name it is there then.
    let _ = taken.file.sync_all();
    if let (Err(error), Err(_)) = (emptied, taken.remove()) {
        complain_of_remains(&taken.path, &error);
    }
}

/// Removes what workers have spent. In the master.
pub fn clear_spent() {
    if let Some(taken) = TAKEN.with_borrow_mut(|taken| taken.take_if(|taken| taken.is_spent())) {
        // An empty file does no harm.
        let _ = taken.remove();
    }
}

/// Writes the zone's channels and messages, unless another nginx has taken possession of the snapshot, and still runs.
pub fn save(path: &Path, zone: SharedZone) {
    let held = LOCK.take().filter(|lock| lock.is_on(path));
    let lock = match held {
        Some(lock) if lock.counts() => Ok(lock),
        // Who has taken over may have ended, and what it has left is newer than what there is here.
        Some(lock) if !lock.is_displaced() && fs::symlink_metadata(path).is_ok() => {
            return leave_to_successor(path)
        }
        // An upgraded binary was killed, or somebody has removed the lock.
        Some(lock) => {
            lock.release();
            Lock::try_new(path)
        }
        None => Lock::try_new(path),
    };
    let lock = match lock {
        Ok(lock) => Some(lock),
        Err(TryLockError::WouldBlock) => return leave_to_successor(path),
        // Nobody can have it, and the snapshot may well be written.
        Err(TryLockError::Error(_)) => None,
    };
    match write(path, zone, lock.as_ref()) {
        Ok(Saved { channels, messages }) => {
            // If no worker has ever run, it is all in the new one.
            let _ = TAKEN.take().map(|taken| taken.remove());
            log::cycle(
                Level::Notice,
                &format!(
                    "push: saved {messages} messages of {channels} channels to {}",
                    path.display()
                ),
            );
        }
        Err(error) => log::cycle(
            Level::Error,
            &format!(
                "push: cannot save the messages to {}, they are lost: {error}",
                path.display()
            ),
        ),
    }
    // Only now may another start.
    if let Some(lock) = lock {
        lock.release();
    }
}

/// The messages of an nginx in whose place another one runs are not saved: that one has begun without them, and what it saves is
/// not to be mixed up with what was before.
pub fn leave_to_successor(path: &Path) {
    log::cycle(
        Level::Error,
        &format!(
            "push: messages are not saved to {}, for another nginx goes on in place of this one; those that it does not \
             have are lost",
            path.display()
        ),
    );
}

fn write(path: &Path, zone: SharedZone, lock: Option<&Lock>) -> io::Result<Saved> {
    let temporary = with_suffix(path, ".tmp");
    let remaining = match lock {
        Some(lock) if lock.has_predecessor() => Remaining::Predecessor,
        _ => Remaining::Nobody,
    };
    let written = write_to(&temporary, zone, remaining).and_then(|saved| match lock {
        // That may have taken long.
        Some(lock) if !lock.counts() => Err(io::Error::other("another nginx uses it by now")),
        _ => Ok(saved),
    });
    let done = written.and_then(|saved| fs::rename(&temporary, path).map(|()| saved));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    keep_name(path);
    done
}

/// Has the new name of a file outlive a crash of the system. Not every file system can do it.
fn keep_name(path: &Path) {
    let _ = path.parent().and_then(|directory| File::open(directory).ok()).map(|it| it.sync_all());
}

fn write_to(path: &Path, zone: SharedZone, remaining: Remaining) -> io::Result<Saved> {
    // What a run that was killed has left. Whatever else is there is not ours to follow or fill.
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let (now, token) = (clock::now(), zone.token);
    let saved = zone.with(now, |zone| zone.save(token, remaining, now, &mut out));
    let saved = saved.unwrap_or_else(|| Err(io::Error::other("the zone cannot be read")))?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(saved)
}

/// Takes channels and messages back into a new zone.
fn restore(path: &Path, new: NewZone) {
    // A start that ends before a worker runs leaves the snapshot under this name; the next one goes on with it.
    let taken = with_suffix(path, ".taken");
    let is_spent = fs::symlink_metadata(&taken).is_ok_and(|file| file.is_file() && file.len() == 0);
    if is_spent {
        let _ = fs::remove_file(&taken);
    }
    let found = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_spent => return,
        Err(error) if error.kind() == io::ErrorKind::NotFound => (read(&taken), taken.as_path()),
        found => (found, path),
    };
    let (bytes, path) = match found {
        (Ok(bytes), path) => (bytes, path),
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return,
        (Err(error), path) => {
            complain(path, &format!("cannot be read: {error}"), "");
            return;
        }
    };
    let snapshot = match Snapshot::read(&bytes) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let bad = with_suffix(path, ".bad");
            let outcome = match fs::rename(path, &bad) {
                Ok(()) => format!("; it is now {}", bad.display()),
                Err(error) => format!("; it cannot be renamed: {error}"),
            };
            complain(path, &error.to_string(), &outcome);
            return;
        }
    };
    // A snapshot that came back at each start would bring back what was read and deleted long ago.
    if let Err(error) = fs::rename(path, &taken) {
        complain(path, &format!("cannot be renamed, which it must be: {error}"), "");
        return;
    }
    keep_name(&taken);
    let held = Taken::open(&taken);
    let (now, token) = (clock::now(), snapshot.token());
    let zone = new.continuing(token);
    let has_file = &mut |file: &[u8], len| spool::adopt(file, len, token);
    if let Some(restored) = zone.with(now, |zone| zone.restore(&snapshot, now, has_file)) {
        report(path, &restored);
    }
    match held {
        Ok(held) => TAKEN.set(Some(held)),
        // Workers could not empty it.
        Err(_) => {
            if let Err(error) = fs::remove_file(&taken) {
                complain_of_remains(&taken, &error);
            }
        }
    }
}

fn complain_of_remains(path: &Path, error: &io::Error) {
    log::cycle(
        Level::Error,
        &format!("push: cannot remove {}, which has been restored: {error}", path.display()),
    );
}

/// All of a file, of which nobody knows what it is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would keep nginx waiting.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    file.take(metadata.len()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn complain(path: &Path, what: &str, outcome: &str) {
    let path = path.display();
    log::cycle(
        Level::Error,
        &format!("push: the snapshot {path} {what}; its messages are not restored{outcome}"),
    );
}

fn report(path: &Path, restored: &Restored) {
    let Restored { channels, messages, expired, lost, dropped } = restored;
    let mut line = format!(
        "push: restored {messages} messages of {channels} channels from {}",
        path.display()
    );
    for (count, what) in [
        (expired, "have expired meanwhile"),
        (dropped, "found no room, the oldest of the largest channels"),
        (lost, "were in files that are gone"),
    ] {
        if *count > 0 {
            line += &format!("; {count} {what}");
        }
    }
    let level = if *dropped + *lost > 0 { Level::Error } else { Level::Notice };
    log::cycle(level, &line);
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
