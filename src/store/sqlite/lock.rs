//! One heal per file: a lock of heal's own beside the database.
//!
//! SQLite's own locks would do as well, but then nobody else could read, not even a backup. The lock
//! goes with its process, however that ends. Its file stays: to remove it would let two take "it".

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::store::{Error, Result};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(20);

/// Held for the life of this value.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "what counts is that it is open")] File);

impl Lock {
    /// Takes the lock of the database at `file` (no link any more); waits `patience` for who has it.
    /// [`Error::InUse`] with the other's process id where that is known.
    pub(super) fn take(file: &Path, patience: Duration) -> Result<Lock> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = file.with_file_name(format!("{name}.lock"));
        let cannot = |error: std::io::Error| {
            Error::Database(format!(
                "{} cannot be locked: {error}; hint: heal must be allowed to write there, and it must be a local disk",
                path.display()
            ))
        };
        let made = !path.exists();
        let mut options = OpenOptions::new();
        let mut lock =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
        if made {
            give_to_owner_of(file, &lock);
        }
        let until = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(AGAIN),
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let read = (&lock).take(20).read_to_string(&mut text);
                    let holder = read.ok().and_then(|_| text.trim().parse::<u32>().ok());
                    let holder = holder.map_or_else(String::new, |pid| format!("; its process id is {pid}"));
                    return Err(Error::InUse(format!("{} is locked{holder}", path.display())));
                }
            }
        }
        // Only for people, so a full disk does not matter.
        drop(lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())));
        Ok(Lock(lock))
    }
}

/// When root looks at a store (`heal doctor`), the lock must not become root's. SQLite does the same
/// with the files that it makes.
fn give_to_owner_of(database: &Path, lock: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    // Asked without opening it: closing it again would drop the locks that SQLite has on it here.
    if let Ok(of) = std::fs::metadata(database) {
        drop(fchown(lock, Some(of.uid()), Some(of.gid())));
    }
}
