//! What is left of each certificate's budgets, on disk (spec `scheduling.md` §5.4): one file, changed in transactions that
//! are on the disk when they return, so that a killed process or a power cut loses at most what was not charged yet.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use pktlab::cert::Verified;
use pktlab::wire::Ticks;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::record::Record;
use super::{CertKey, Remaining, Usage, privileges};

/// Certificate key to record.
const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("budgets");
/// A longer serial number is refused, or a delegate could fill the disk with them. X.509 allows 20 bytes.
const SERIAL_MAX: usize = 64;
/// The file is small and seldom read.
const CACHE: usize = 256 * 1024;

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The session must be refused: nobody knows what the certificate may still do.
    #[error(
        "the limit store holds a damaged record for the certificate with {0}; \
         restore the store from a backup, or remove it, which gives all certificates their budgets back"
    )]
    Damaged(CertKey),
    #[error("a certificate has a serial number of {0} bytes; limits are kept for up to {SERIAL_MAX}")]
    Serial(usize),
    /// Disk full, I/O error. After an I/O error the store answers nothing else until it is opened again.
    #[error("the limit store cannot be used: {0}")]
    Database(Box<redb::Error>),
}

fn database(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

/// The budgets of one chain and how much of a session was already charged to them.
#[derive(Clone, Debug)]
pub struct Charge {
    entries: Vec<Entry>,
    charged: Usage,
}

#[derive(Clone, Debug)]
struct Entry {
    key: CertKey,
    expiry: Ticks,
    left: Remaining,
}

impl Charge {
    /// For a session that starts with what [`Store::read`] `remembered` of this chain. Certificates without budgets have no
    /// part in it.
    pub fn new(chain: &Verified, remembered: &[Option<Remaining>]) -> Charge {
        let mut entries: Vec<Entry> = Vec::new();
        for (i, cert) in privileges(chain).enumerate() {
            let own = Remaining::of(&cert.limits);
            let left = remembered.get(i).copied().flatten().map_or(own, |remembered| own.min(remembered));
            let key = CertKey::of(cert);
            // An issuer who used a serial number twice made one budget of two.
            match entries.iter_mut().find(|entry| entry.key == key) {
                Some(entry) => {
                    entry.left = entry.left.min(left);
                    entry.expiry = entry.expiry.max(cert.not_after);
                }
                None => entries.push(Entry { key, expiry: cert.not_after, left }),
            }
        }
        entries.retain(|entry| entry.left != Remaining::UNLIMITED);
        Charge { entries, charged: Usage::default() }
    }
}

/// The limit store. Clones share one open file; every call may run on any thread.
#[derive(Clone)]
pub struct Store {
    db: Arc<Database>,
}

impl Store {
    /// Opens the store, or makes it with its folders, for this user only. The whole file is checked.
    ///
    /// # Errors
    /// Another process has it open, or it is damaged; the message says what to do.
    pub fn open(path: &Path) -> anyhow::Result<Store> {
        if !path
            .try_exists()
            .with_context(|| format!("cannot look for the limit store {}", path.display()))?
        {
            create(path).with_context(|| format!("cannot make the limit store {}", path.display()))?;
        }
        let store = builder().create(path).map_err(|error| explain(path, error))?;
        Ok(Store { db: Arc::new(store) })
    }

    /// What is left of each of these certificates' budgets; `None` for one that was never charged.
    ///
    /// # Errors
    /// One of the records is damaged or a serial number is too long: refuse the session.
    pub fn read(&self, keys: &[CertKey]) -> Result<Vec<Option<Remaining>>, StoreError> {
        if let Some(key) = keys.iter().find(|key| key.serial.len() > SERIAL_MAX) {
            return Err(StoreError::Serial(key.serial.len()));
        }
        let transaction = self.db.begin_read().map_err(database)?;
        let table = match transaction.open_table(RECORDS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(vec![None; keys.len()]),
            Err(error) => return Err(database(error)),
        };
        keys.iter().map(|key| Ok(find(&table, key)?.map(|record| record.left))).collect()
    }

    /// Subtracts what the session used since its last charge from every certificate's record, in one transaction that is on
    /// the disk afterwards. `used` counts from the session's start. Writes nothing when no budget changes.
    ///
    /// On an error the next charge includes this one.
    pub fn charge(&self, session: &mut Charge, used: &Usage) -> Result<(), StoreError> {
        let more = used.since(&session.charged);
        if session.entries.iter().any(|entry| entry.left.touched_by(&more)) {
            self.subtract(&session.entries, &more)?;
        }
        // A clock set back must not make the same time count again later.
        session.charged = session.charged.max(used);
        Ok(())
    }

    fn subtract(&self, entries: &[Entry], used: &Usage) -> Result<(), StoreError> {
        let transaction = self.db.begin_write().map_err(database)?;
        {
            let mut table = transaction.open_table(RECORDS).map_err(database)?;
            for entry in entries.iter().filter(|entry| entry.left.touched_by(used)) {
                let mut record = Record { expiry: entry.expiry, left: entry.left };
                if let Some(old) = find(&table, &entry.key)? {
                    record.expiry = record.expiry.max(old.expiry);
                    record.left = record.left.min(old.left);
                }
                record.left = record.left.less(used);
                let (key, value) = (entry.key.bytes(), record.emit());
                table.insert(key.as_slice(), value.as_slice()).map_err(database)?;
            }
        }
        transaction.commit().map_err(database)
    }

    /// Deletes the records of certificates that are no longer valid at `now`. Returns how many.
    pub fn expire(&self, now: Ticks) -> Result<usize, StoreError> {
        let transaction = self.db.begin_write().map_err(database)?;
        let mut expired = 0;
        {
            let mut table = transaction.open_table(RECORDS).map_err(database)?;
            // A damaged one stays: it keeps its certificate from being used.
            let keep = |_: &[u8], value: &[u8]| {
                let keep = Record::parse(value).is_none_or(|record| record.expiry >= now);
                expired += usize::from(!keep);
                keep
            };
            table.retain(keep).map_err(database)?;
        }
        if expired == 0 {
            transaction.abort().map_err(database)?;
        } else {
            transaction.commit().map_err(database)?;
        }
        Ok(expired)
    }

    /// Writes bytes as a record.
    #[cfg(test)]
    pub(super) fn put(&self, key: &CertKey, value: &[u8]) -> Result<(), StoreError> {
        let transaction = self.db.begin_write().map_err(database)?;
        transaction
            .open_table(RECORDS)
            .map_err(database)?
            .insert(key.bytes().as_slice(), value)
            .map_err(database)?;
        transaction.commit().map_err(database)
    }
}

fn find(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &CertKey,
) -> Result<Option<Record>, StoreError> {
    let Some(value) = table.get(key.bytes().as_slice()).map_err(database)? else { return Ok(None) };
    Record::parse(value.value()).map(Some).ok_or_else(|| StoreError::Damaged(key.clone()))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// Makes an empty store under another name and moves it into place: a process killed meanwhile leaves no half-made file there.
fn create(path: &Path) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let outcome = draw_up(&draft).and_then(|()| {
        match renameat_with(CWD, &draft, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            // Another process was faster; opening the file will tell.
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    });
    if !matches!(outcome, Ok(true)) {
        // Its own failure would hide the reason.
        let _ = std::fs::remove_file(&draft);
    }
    outcome?;
    File::open(&folder)?.sync_all()?;
    Ok(())
}

fn draw_up(draft: &Path) -> anyhow::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    builder().create(draft)?.close()?;
    Ok(())
}

fn explain(path: &Path, error: DatabaseError) -> anyhow::Error {
    let path = path.display();
    let advice = match &error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => format!(
            "another process uses the limit store {path}; end it or give this endpoint a store of its own"
        ),
        DatabaseError::UpgradeRequired(_) => {
            format!("the limit store {path} was written in another format; use the release that wrote it")
        }
        DatabaseError::Storage(StorageError::Io(io))
            if !matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            format!("cannot open the limit store {path}")
        }
        _ => format!(
            "the limit store {path} is damaged or no limit store; restore it from a backup, or move it \
             away, which gives all certificates their budgets back"
        ),
    };
    anyhow::Error::new(error).context(advice)
}
