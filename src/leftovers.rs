//! Files that no message is in: those of workers that died between a file and its message, or between a message's end
//! and its file's.
//!
//! A worker that starts finds the files of dead workers ([`spool`]). Messages may well be in them, so the zone is asked, a
//! part of it with each tick; those that are left at the end are removed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use comet::clock::Now;

use crate::nginx::zone::SharedZone;
use crate::spool;

/// Files of dead workers, and how far the search for their messages has come.
#[derive(Default)]
pub struct Leftovers {
    /// By their names alone, which are given once: the same directory may be written in several ways.
    files: HashMap<OsString, PathBuf>,
    bucket: usize,
}

impl Leftovers {
    /// Goes on with the search, and removes files at its end.
    pub fn search(&mut self, zone: &SharedZone, now: Now) {
        if self.files.is_empty() {
            self.bucket = 0;
            let named = |path: PathBuf| Some((path.file_name()?.to_owned(), path));
            self.files = spool::take_found().into_iter().filter_map(named).collect();
        }
        if self.files.is_empty() {
            return;
        }
        let from = self.bucket;
        let next = zone.with(now, |zone| {
            // Its messages are in another zone.
            if zone.is_closed() {
                self.files.clear();
                return None;
            }
            zone.visit_files(from, |path| {
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                self.files.remove(&OsString::from_vec(name.to_vec()));
            })
        });
        match next {
            Some(Some(bucket)) => self.bucket = bucket,
            Some(None) => {
                self.files.drain().for_each(|(_, path)| spool::remove(path.as_os_str().as_bytes()))
            }
            None => self.files.clear(),
        }
    }
}
