//! Uploaded content on its way in: to the store up to a threshold, to a private file beyond it.
//!
//! The SHA-256 is computed as the bytes come. Hashing and file work run on blocking threads, in pieces of [`PIECE_LEN`]. Invariants: every
//! file is mode 0600 in a directory of mode 0700 that one gateway holds a lock on; what is kept is counted against the two budgets, and a
//! dropped upload leaves nothing behind.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempPath;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use super::{TicketError, TicketSettings, objects::Objects};
use crate::{
    cms::{self, Hasher, armor::Armor},
    domain::{
        algorithm::HashAlgorithm,
        digest::Digest,
        ticket::{Content, ContentPart, ContentPlace},
    },
    store::ContentUsage,
};

/// How much of an upload is hashed and written at a time, in bytes.
const PIECE_LEN: usize = 256 * 1024;
/// What may be hashed without leaving the event loop, in bytes: well below a millisecond.
const INLINE_HASH_MAX: usize = 64 * 1024;
/// A file in a shared spool directory that nobody refers to and that nobody has written to for so long is left over from a crash.
const SHARED_LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the spool's files are called.
const FILE_PREFIX: &str = "content-";

/// Where uploaded content goes.
pub(super) struct Spool {
    settings: TicketSettings,
    stored: Arc<Budget>,
    disk: Arc<Budget>,
    /// Held as long as the spool is open.
    _lock: File,
}

impl Spool {
    /// Opens the spool directory, makes it if it is missing, and removes the files that no ticket refers to: `referred` are those that one
    /// does. `usage` is what the tickets have already.
    ///
    /// # Errors
    /// The directory cannot be made private, or another gateway uses it.
    pub(super) fn open(settings: TicketSettings, referred: &[String], usage: ContentUsage) -> io::Result<Self> {
        let dir = &settings.spool_dir;
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // Fails for a directory that belongs to somebody else.
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        let lock = File::create(dir.join(".lock"))?;
        if settings.spool_shared {
            // What is being received by another gateway is referred to by nobody yet.
            remove_leftovers(dir, referred, SHARED_LEFTOVER_AGE)?;
        } else {
            lock.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another gateway uses this spool directory"),
                TryLockError::Error(error) => error,
            })?;
            remove_leftovers(dir, referred, Duration::ZERO)?;
        }
        let stored = Arc::new(Budget::new(usage.stored, settings.content_stored_max));
        let disk = Arc::new(Budget::new(usage.spooled, settings.content_disk_max));
        Ok(Self { settings, stored, disk, _lock: lock })
    }

    /// Corrects how much is used by what the store says.
    pub(super) fn recount(&self, usage: ContentUsage) {
        self.stored.used.store(usage.stored, Ordering::Relaxed);
        self.disk.used.store(usage.spooled, Ordering::Relaxed);
    }

    /// Begins an upload.
    pub(super) fn upload(self: &Arc<Self>, part: ContentPart) -> Upload {
        // Documents are taken as they are.
        let armor = (part == ContentPart::Signature).then(Armor::default);
        Upload {
            part,
            armor,
            buffer: Vec::new(),
            stored: Share::none(&self.stored),
            file: None,
            len: 0,
            objects: Objects::default(),
            spool: Arc::clone(self),
        }
    }

    /// Gives up content that no ticket refers to any more.
    pub(super) fn discard(&self, content: Content) {
        match content.place {
            // The store has removed it with its ticket.
            ContentPlace::Stored => self.stored.release(content.len),
            ContentPlace::Spooled(name) => {
                self.disk.release(content.len);
                let path = self.path_of(&name);
                // Unlinking a long file takes a moment; nobody waits for it.
                spawn_blocking(move || {
                    if let Err(error) = fs::remove_file(&path) {
                        warn!(error = %error, "a spooled file could not be removed");
                    }
                });
            }
        }
    }

    /// Where the file of this name is.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.settings.spool_dir.join(name)
    }

    /// A file without a name for `bytes` bytes, which are counted for as long as the share lives.
    pub(super) fn scratch(&self, bytes: u64) -> Result<(File, Share), TicketError> {
        let mut share = Share::none(&self.disk);
        if !share.grow(bytes) {
            return Err(TicketError::SpoolFull);
        }
        Ok((tempfile::tempfile_in(&self.settings.spool_dir).map_err(unavailable)?, share))
    }

    fn create_file(&self) -> Result<Writing, TicketError> {
        let created = tempfile::Builder::new().prefix(FILE_PREFIX).tempfile_in(&self.settings.spool_dir).map_err(unavailable)?;
        let (file, path) = created.into_parts();
        Ok(Writing { file, path, hasher: Hasher::new(HashAlgorithm::Sha256), disk: Share::none(&self.disk) })
    }
}

/// One upload, being received. Dropped, it leaves nothing behind.
pub struct Upload {
    part: ContentPart,
    /// What takes off PEM or Base64, where it may be there.
    armor: Option<Armor>,
    spool: Arc<Spool>,
    /// All of it so far, or what has not been written to the file yet.
    buffer: Vec<u8>,
    stored: Share,
    file: Option<Writing>,
    len: u64,
    objects: Objects,
}

struct Writing {
    file: File,
    path: TempPath,
    hasher: Hasher,
    disk: Share,
}

impl Upload {
    /// The most bytes that are taken.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.spool.settings.upload_bytes_max
    }

    /// What it is an upload of.
    pub(super) const fn part(&self) -> ContentPart {
        self.part
    }

    /// Begins a data object: what comes from now on is its. A name or a media type that a container cannot have is as if there were none.
    ///
    /// # Errors
    /// [`TicketError::TooManyObjects`].
    pub fn begin_object(&mut self, file_name: Option<&str>, media_type: Option<&str>) -> Result<(), TicketError> {
        self.objects.begin(file_name, media_type, self.len)
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`TicketError::TooLarge`], [`TicketError::SpoolFull`], [`TicketError::SpoolUnavailable`], [`TicketError::Armor`].
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), TicketError> {
        match &mut self.armor {
            None => self.keep(piece).await,
            Some(armor) => {
                let mut bare = Vec::new();
                armor.push(piece, &mut bare)?;
                self.keep(&bare).await
            }
        }
    }

    async fn keep(&mut self, piece: &[u8]) -> Result<(), TicketError> {
        let piece_len = piece.len() as u64;
        self.len = self.len.saturating_add(piece_len);
        if self.len > self.limit() {
            return Err(TicketError::TooLarge { limit: self.limit() });
        }
        if self.file.is_none() && (self.len > self.spool.settings.spool_threshold || !self.stored.grow(piece_len)) {
            let spool = Arc::clone(&self.spool);
            self.file = Some(blocking(move || spool.create_file()).await?);
            self.stored.release();
        }
        self.buffer.extend_from_slice(piece);
        if self.file.is_some() && self.buffer.len() >= PIECE_LEN { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), TicketError> {
        let Some(mut writing) = self.file.take() else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let flushed = blocking(move || {
            if !writing.disk.grow(buffer.len() as u64) {
                return Err(TicketError::SpoolFull);
            }
            writing.hasher.update(&buffer);
            writing.file.write_all(&buffer).map_err(unavailable)?;
            buffer.clear();
            Ok((writing, buffer))
        });
        let (writing, buffer) = flushed.await?;
        self.file = Some(writing);
        self.buffer = buffer;
        Ok(())
    }

    /// Ends the upload.
    ///
    /// # Errors
    /// [`TicketError::SpoolFull`], [`TicketError::SpoolUnavailable`].
    pub(super) async fn finish(mut self) -> Result<Received, TicketError> {
        if let Some(armor) = self.armor.take() {
            let mut rest = Vec::new();
            armor.finish(&mut rest)?;
            self.keep(&rest).await?;
        }
        self.flush().await?;
        let Self { buffer, stored, file, len, spool, objects, .. } = self;
        if let Some(Writing { file, path, hasher, disk }) = file {
            let sha256 = hasher.finish();
            let whole = sha256.clone();
            let (path, name, objects) = blocking(move || {
                let (path, name) = synced(&spool, &file, path).map_err(unavailable)?;
                let objects = objects.finish(len, &whole, || File::open(&path))?;
                Ok((path, name, objects))
            })
            .await?;
            let content = Content { place: ContentPlace::Spooled(name), len, sha256, objects };
            return Ok(Received { content, bytes: None, path: Some(path), share: disk });
        }
        let hash = move || {
            let sha256 = cms::digest(HashAlgorithm::Sha256, &buffer);
            let objects = objects.finish(len, &sha256, || Ok(buffer.as_slice()))?;
            Ok((sha256, objects, buffer))
        };
        let (sha256, objects, buffer) = if len > INLINE_HASH_MAX as u64 { blocking(hash).await? } else { hash()? };
        let content = Content { place: ContentPlace::Stored, len, sha256, objects };
        Ok(Received { content, bytes: Some(buffer.into()), path: None, share: stored })
    }
}

/// A ticket that is in the store must find its file after a power loss: both the bytes and their directory entry are on disk when this returns.
fn synced(spool: &Spool, file: &File, path: TempPath) -> io::Result<(TempPath, String)> {
    file.sync_all()?;
    File::open(&spool.settings.spool_dir)?.sync_all()?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((path, name))
}

/// Content that was received whole and belongs to no ticket yet. Dropped, it leaves nothing behind.
pub(super) struct Received {
    content: Content,
    bytes: Option<Arc<[u8]>>,
    path: Option<TempPath>,
    share: Share,
}

impl Received {
    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// What the store is to keep; `None` for what stands in a file.
    pub(super) fn bytes(&self) -> Option<Arc<[u8]>> {
        self.bytes.clone()
    }

    /// Leaves the content to the ticket that is to refer to it; [`Spool::discard`] is the way to end it.
    pub(super) fn keep(self) -> Content {
        self.share.keep();
        if let Some(Err(error)) = self.path.map(TempPath::keep) {
            error!(error = %error, "a spooled file could not be kept");
        }
        self.content
    }
}

pub(super) fn hash_file(path: &Path, hash: HashAlgorithm) -> io::Result<Digest> {
    hash_of(&mut File::open(path)?, hash)
}

pub(super) fn hash_of(content: &mut impl Read, hash: HashAlgorithm) -> io::Result<Digest> {
    let (mut hasher, mut piece) = (Hasher::new(hash), vec![0; PIECE_LEN]);
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&piece[..n]),
        }
    }
}

/// Runs what would hold up an event loop on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, TicketError> + Send + 'static) -> Result<T, TicketError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        error!(error = %error, "a blocking task did not end well");
        Err(TicketError::SpoolUnavailable)
    })
}

pub(super) fn unavailable(error: io::Error) -> TicketError {
    error!(error = %error, "the spool directory cannot be used");
    TicketError::SpoolUnavailable
}

/// Removes the files that nobody refers to and that were not written to for `age`.
fn remove_leftovers(dir: &Path, referred: &[String], age: Duration) -> io::Result<()> {
    let referred: HashSet<_> = referred.iter().map(String::as_str).collect();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(FILE_PREFIX) && !referred.contains(&*name) && is_older(&entry, age) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_older(entry: &fs::DirEntry, age: Duration) -> bool {
    let written = entry.metadata().and_then(|metadata| metadata.modified());
    age.is_zero() || written.is_ok_and(|written| written.elapsed().is_ok_and(|since| since > age))
}

/// A number of bytes that all uploads together may take.
struct Budget {
    used: AtomicU64,
    max: u64,
}

impl Budget {
    const fn new(used: u64, max: u64) -> Self {
        Self { used: AtomicU64::new(used), max }
    }

    fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn release(&self, bytes: u64) {
        // Another gateway on the same store may have taken what is given back here.
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// What one upload has taken of a budget; given back when it is dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    fn none(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.budget.take(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }

    fn release(&mut self) {
        self.budget.release(std::mem::take(&mut self.bytes));
    }

    /// Leaves the bytes taken: whoever has the content gives them back.
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spool(dir: &Path, change: impl FnOnce(&mut TicketSettings)) -> Arc<Spool> {
        let mut settings = TicketSettings { spool_threshold: 1000, upload_bytes_max: 2_000_000, ..TicketSettings::new(dir.join("spool")) };
        change(&mut settings);
        Arc::new(Spool::open(settings, &[], ContentUsage::default()).unwrap())
    }

    fn files(dir: &Path) -> Vec<fs::DirEntry> {
        let entries = fs::read_dir(dir.join("spool")).unwrap().map(Result::unwrap);
        entries.filter(|entry| entry.file_name() != ".lock").collect()
    }

    async fn receive(spool: &Arc<Spool>, bytes: &[u8], piece: usize) -> Result<Received, TicketError> {
        let mut upload = spool.upload(ContentPart::Document);
        for piece in bytes.chunks(piece) {
            upload.write(piece).await?;
        }
        upload.finish().await
    }

    fn used(spool: &Spool) -> (u64, u64) {
        (spool.stored.used.load(Ordering::Relaxed), spool.disk.used.load(Ordering::Relaxed))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn content_of_any_length_in_pieces_of_any_length_is_kept_and_hashed(len in 0usize..700_000, piece in 1usize..300_000) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            runtime.block_on(async {
                let received = receive(&spool(dir.path(), |_| {}), &bytes, piece).await.unwrap();
                let content = received.content();
                prop_assert_eq!(content.len, len as u64);
                prop_assert_eq!(&content.sha256, &cms::digest(HashAlgorithm::Sha256, &bytes));
                match &content.place {
                    ContentPlace::Stored => prop_assert!(len <= 1000 && received.bytes().unwrap()[..] == bytes[..]),
                    ContentPlace::Spooled(name) => {
                        let path = dir.path().join("spool").join(name);
                        prop_assert!(len > 1000 && received.bytes().is_none() && fs::read(&path).unwrap() == bytes);
                        for hash in HashAlgorithm::ALL {
                            prop_assert_eq!(hash_file(&path, hash).unwrap(), cms::digest(hash, &bytes));
                        }
                    }
                }
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_spooled_file_is_private_and_goes_with_its_upload() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), |_| {});
        assert_eq!(fs::metadata(dir.path().join("spool")).unwrap().permissions().mode() & 0o777, 0o700);
        let received = receive(&spool, &[1; 5000], 1000).await.unwrap();
        assert_eq!(files(dir.path())[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(used(&spool), (0, 5000));
        drop(received);
        assert_eq!((files(dir.path()).len(), used(&spool)), (0, (0, 0)));
        let mut cut_off = spool.upload(ContentPart::Document);
        cut_off.write(&[1; 5000]).await.unwrap();
        drop(cut_off);
        assert_eq!((files(dir.path()).len(), used(&spool)), (0, (0, 0)));
    }

    #[tokio::test]
    async fn what_is_too_long_or_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), |settings| {
            settings.upload_bytes_max = 600_000;
            settings.content_disk_max = 700_000;
            settings.content_stored_max = 1500;
        });
        let error = |result: Result<Received, TicketError>| result.err();
        assert_eq!(error(receive(&spool, &[0; 600_001], 1000).await), Some(TicketError::TooLarge { limit: 600_000 }));
        let first = receive(&spool, &[0; 600_000], 1000).await.unwrap();
        assert_eq!(error(receive(&spool, &[0; 600_000], 1000).await), Some(TicketError::SpoolFull));
        let small = receive(&spool, &[0; 1000], 100).await.unwrap();
        let spooled_for_want_of_room = receive(&spool, &[0; 1000], 100).await.unwrap();
        assert!(matches!(small.content().place, ContentPlace::Stored));
        assert!(matches!(spooled_for_want_of_room.content().place, ContentPlace::Spooled(_)));
        assert_eq!(used(&spool), (1000, 601_000));
        drop((first, small, spooled_for_want_of_room));
        assert_eq!(used(&spool), (0, 0));
    }

    #[test]
    fn a_spool_directory_has_one_gateway_which_removes_what_the_last_one_left() {
        let dir = tempfile::tempdir().unwrap();
        let first = spool(dir.path(), |_| {});
        fs::write(dir.path().join("spool/content-old"), "old").unwrap();
        fs::write(dir.path().join("spool/content-referred"), "referred").unwrap();
        let settings = TicketSettings::new(dir.path().join("spool"));
        let open = || Spool::open(settings.clone(), &["content-referred".to_owned()], ContentUsage { stored: 1, spooled: 8 });
        let second = open();
        assert_eq!(second.err().map(|error| error.kind()), Some(io::ErrorKind::ResourceBusy));
        drop(first);
        spool(dir.path(), |_| {});
        assert_eq!(files(dir.path()).len(), 0);
    }
}
