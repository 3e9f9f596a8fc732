//! Sealed files of hostile bytes, opened as frozen elements: a typed error, or a slice that lies in the file.

use core::hint::black_box;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use arbitrary::Arbitrary;
use crosslane_core::Plain;
use crosslane_shm::{Frozen, Options};

/// Where a header keeps what counts here.
const FIELDS: [u8; 12] = [0, 8, 12, 16, 40, 44, 48, 56, 64, 128, 144, 152];
const MOST_BYTES: usize = 16 << 10;

#[derive(Debug, Arbitrary)]
struct Input {
    made_as: Kind,
    opened_as: Kind,
    seals: u8,
    /// Bytes that the file is longer, or shorter.
    longer: i16,
    changes: Vec<(u8, bool, u64, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Kind {
    Numbers,
    Odd,
    Nothing,
}

static OPENED: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// How many of each kind could be opened so far in this process.
#[must_use]
pub fn opened() -> [u32; 3] {
    core::array::from_fn(|i| OPENED[i].load(Ordering::Relaxed))
}

/// Runs one input. Planted: a reader that takes the number of elements from the header, without a look at the length.
///
/// # Panics
/// When a call panics, a slice is not what the file holds, or the planted bug is found.
#[allow(unsafe_code)]
pub fn run(data: &[u8], planted: bool) {
    let Some(input) = crate::decode::<Input>(data) else { return };
    let mut bytes = template(input.made_as).clone();
    bytes.resize(bytes.len().saturating_add_signed(input.longer.into()).min(MOST_BYTES), 0);
    for (place, is_field, value, width) in &input.changes {
        let at = if *is_field { FIELDS[usize::from(*place) % FIELDS.len()] } else { *place };
        let value = &value.to_le_bytes()[..1 + usize::from(*width % 8)];
        if let Some(place) = bytes.get_mut(usize::from(at)..usize::from(at) + value.len()) {
            place.copy_from_slice(value);
        }
    }
    if planted && bytes.len() > 256 && bytes.starts_with(b"xlaneSEG") {
        let count = u64::from_le_bytes(core::array::from_fn(|i| bytes[64 + i]));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        black_box(&bytes[256..usize::saturating_add(256, count.saturating_mul(8))]);
    }
    // SAFETY: a static name.
    let fd = unsafe { libc::memfd_create(c"hostile".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: just made, owned by nobody else.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all_at(&bytes, 0).expect("written");
    let all = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // Most files whole: those with other seals are refused at once.
    let seals = if input.seals < 240 { all } else { i32::from(input.seals) & all };
    // SAFETY: a plain call on our own descriptor.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    let is_sealed = seals == all;
    match input.opened_as {
        Kind::Numbers => open::<u64>(&input, file, &bytes, is_sealed),
        Kind::Odd => open::<[u8; 24]>(&input, file, &bytes, is_sealed),
        Kind::Nothing => open::<[u16; 0]>(&input, file, &bytes, is_sealed),
    }
}

fn open<T: Plain>(input: &Input, file: File, bytes: &[u8], is_sealed: bool) {
    match Frozen::<T>::from_fd(file.into(), &Options::new()) {
        Ok(frozen) => {
            assert!(is_sealed, "opened without seals");
            if input.changes.is_empty() {
                assert_eq!((input.made_as, input.longer), (input.opened_as, 0));
            }
            OPENED[input.opened_as as usize].fetch_add(1, Ordering::Relaxed);
            let slice: &[T] = &frozen;
            let len = size_of_val(slice);
            assert!(bytes.len() >= 256 + len, "{len} bytes of elements in a file of {}", bytes.len());
            for (i, element) in slice.iter().enumerate().take(MOST_BYTES) {
                let place = core::ptr::from_ref(element).addr() - slice.as_ptr().addr();
                assert_eq!(place, i * size_of::<T>());
                black_box(*element);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The bytes of honest frozen elements.
fn template(kind: Kind) -> &'static Vec<u8> {
    static TEMPLATES: [OnceLock<Vec<u8>>; 3] = [const { OnceLock::new() }; 3];
    TEMPLATES[kind as usize].get_or_init(|| {
        let options = Options::new();
        let frozen: Box<dyn AsFd> = match kind {
            Kind::Numbers => Box::new(Frozen::new(&[7_u64; 30], &options).expect("made")),
            Kind::Odd => Box::new(Frozen::new(&[[9_u8; 24]; 5], &options).expect("made")),
            Kind::Nothing => Box::new(Frozen::new(&[[0_u16; 0]; 3], &options).expect("made")),
        };
        let file = File::from(frozen.as_fd().try_clone_to_owned().expect("a descriptor more"));
        let mut bytes = vec![0; usize::try_from(file.metadata().expect("stat").len()).expect("small")];
        file.read_exact_at(&mut bytes, 0).expect("as long as stat says");
        bytes
    })
}
