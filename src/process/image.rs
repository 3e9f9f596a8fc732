//! Addresses of code that mean the same in another process of the same program: (image, offset).
//!
//! An image is the program or a shared library. It lies at another address in each process (ASLR), so an address travels as
//! its distance from the image's load address, with the image's identity, which the receiver must find among its own
//! images. The idea is UPC++'s (`ccs.cpp`).
//!
//! # Identity
//! The GNU build-id, which linkers compute from the contents. Without one, a hash of the machine code; of the program
//! itself only if another file was started than the one that runs here, because the kernel vouches for `/proc/self/exe`:
//! nobody can write to a file that is executed, and a file that was replaced is another one. So the common case without a
//! build-id reads no code.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::slice;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// Bytes of a build-id that count; SHA-1's length, which is the longest that linkers make unless told otherwise.
const ID_BYTES: usize = 20;
const NT_GNU_BUILD_ID: u32 = 3;

/// What tells an image from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ImageId {
    /// The linker's.
    Build([u8; ID_BYTES]),
    /// A hash of its code.
    Code(u64),
    /// The program, without a build-id, of a process that was started from the very same file.
    SameFile,
}

/// An address of code, for another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CodePointer {
    pub(crate) image: ImageId,
    offset: u64,
}

/// Which file the other process is started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The one that this process runs, by `/proc/self/exe`.
    Same,
    /// Some path.
    Other,
}

impl CodePointer {
    /// The address as a process that is started from `program` will find it; `None` if it lies in no image.
    pub(crate) fn new(address: usize, program: Program) -> Option<Self> {
        let own = main();
        if own.has(address) {
            let image = match (own.build_id, program) {
                (Some(id), _) => ImageId::Build(id),
                (None, Program::Same) => ImageId::SameFile,
                (None, Program::Other) => own.hashed()?,
            };
            return Some(Self { image, offset: own.offset(address) });
        }
        let library = find(|image| image.has(address))?;
        Some(Self { image: library.id()?, offset: library.offset(address) })
    }

    /// The address in this process; `None` if it has no such image.
    pub(crate) fn resolve(self) -> Option<usize> {
        let resolve_in = |image: &Image| {
            let address = image.bias.wrapping_add(usize::try_from(self.offset).ok()?);
            image.has(address).then_some(address)
        };
        match self.image {
            ImageId::SameFile => resolve_in(main()).filter(|_| main().build_id.is_none()),
            id if main().is(id) => resolve_in(main()),
            id => resolve_in(&find(|image| image.is(id))?),
        }
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Code(hash) => write!(f, "{hash:016x} (by its code)"),
            Self::SameFile => f.write_str("without a build-id"),
        }
    }
}

/// An executable file or library in this process's memory.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// What is added to the file's addresses.
    bias: usize,
    build_id: Option<[u8; ID_BYTES]>,
    code: Vec<Code>,
    /// The dynamic section, if it has one.
    pub(crate) dynamic: Option<usize>,
    hash: OnceLock<u64>,
}

#[derive(Debug, Clone)]
struct Code {
    addresses: Range<usize>,
    is_readable: bool,
}

impl Image {
    pub(crate) fn has(&self, address: usize) -> bool {
        self.code.iter().any(|code| code.addresses.contains(&address))
    }

    /// Where something of the file lies.
    pub(crate) fn address(&self, in_file: usize) -> usize {
        self.bias.wrapping_add(in_file)
    }

    fn offset(&self, address: usize) -> u64 {
        address.wrapping_sub(self.bias) as u64
    }

    fn is(&self, id: ImageId) -> bool {
        match id {
            ImageId::Build(id) => self.build_id == Some(id),
            ImageId::Code(_) => self.build_id.is_none() && self.hashed() == Some(id),
            ImageId::SameFile => false,
        }
    }

    /// `None` if it has no build-id, and code that may be executed and not read.
    pub(crate) fn id(&self) -> Option<ImageId> {
        self.build_id.map(ImageId::Build).or_else(|| self.hashed())
    }

    fn hashed(&self) -> Option<ImageId> {
        if self.code.iter().any(|code| !code.is_readable) {
            return None;
        }
        Some(ImageId::Code(*self.hash.get_or_init(|| self.code.iter().fold(0, |hash, code| code.hash(hash)))))
    }
}

impl Code {
    /// Mixes eight bytes at a time, as FNV does with one: against accidents, not against malice.
    fn hash(&self, seed: u64) -> u64 {
        let start = std::ptr::with_exposed_provenance::<u8>(self.addresses.start);
        // SAFETY:
        // - a segment of a loaded image, whole and readable, as the loader's table says;
        // - libraries that this process uses are not unloaded (the caller has the address of a function in one);
        // - nobody writes machine code.
        let bytes = unsafe { slice::from_raw_parts(start, self.addresses.len()) };
        let (words, rest) = bytes.as_chunks::<8>();
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        let hash = words.iter().fold(seed ^ bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
    }
}

/// The program: the first image of the loader's table. It never moves.
pub(crate) fn main() -> &'static Image {
    static MAIN: OnceLock<Image> = OnceLock::new();
    // A process without any image does not run this line.
    MAIN.get_or_init(|| {
        let nothing = Image { bias: 0, build_id: None, code: Vec::new(), dynamic: None, hash: OnceLock::new() };
        find(|_| true).unwrap_or(nothing)
    })
}

/// The first image of the loader's table that is `wanted`.
pub(crate) fn find(wanted: impl Fn(&Image) -> bool) -> Option<Image> {
    let mut found = None;
    each(&mut |image| {
        if wanted(&image) {
            found = Some(image);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found
}

type Visit<'a> = &'a mut dyn FnMut(Image) -> ControlFlow<()>;

fn each(mut visit: Visit<'_>) {
    let data: *mut Visit<'_> = &raw mut visit;
    // SAFETY: `visit_one` is given the pointer only during this call, and takes it for what it is.
    unsafe { libc::dl_iterate_phdr(Some(visit_one), data.cast::<c_void>()) };
}

unsafe extern "C" fn visit_one(info: *mut libc::dl_phdr_info, _size: usize, visit: *mut c_void) -> c_int {
    // SAFETY: the pointer that `each` has passed, and nobody else uses it meanwhile.
    let visit = unsafe { &mut *visit.cast::<Visit<'_>>() };
    // SAFETY: the loader's, for the time of the call.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: as above: so many program headers.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    match visit(read(native(info.dlpi_addr), headers)) {
        ControlFlow::Continue(()) => 0,
        ControlFlow::Break(()) => 1,
    }
}

#[cfg(target_pointer_width = "64")]
type ProgramHeader = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
type ProgramHeader = libc::Elf32_Phdr;

/// Addresses and lengths of this process have its width, whatever the loader's types are.
fn native(word: impl TryInto<usize>) -> usize {
    word.try_into().unwrap_or(0)
}

/// What the program headers of a loaded image say.
fn read(bias: usize, headers: &[ProgramHeader]) -> Image {
    let mut image = Image { bias, build_id: None, code: Vec::new(), dynamic: None, hash: OnceLock::new() };
    for header in headers {
        let start = bias.wrapping_add(native(header.p_vaddr));
        let len = native(header.p_memsz);
        match header.p_type {
            libc::PT_LOAD if header.p_flags & libc::PF_X != 0 => {
                let is_readable = header.p_flags & libc::PF_R != 0;
                image.code.push(Code { addresses: start..start.saturating_add(len), is_readable });
            }
            libc::PT_NOTE if image.build_id.is_none() => {
                let start = std::ptr::with_exposed_provenance::<u8>(start);
                // SAFETY: notes lie in a readable segment of the image, which is loaded: the loader has it in its table.
                image.build_id = build_id(unsafe { slice::from_raw_parts(start, len) });
            }
            libc::PT_DYNAMIC => image.dynamic = Some(start),
            _ => {}
        }
    }
    image
}

/// The build-id among an image's notes.
fn build_id(mut notes: &[u8]) -> Option<[u8; ID_BYTES]> {
    loop {
        let (head, rest) = notes.split_first_chunk::<12>()?;
        let word = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let (name_len, value_len) = (word(0)? as usize, word(4)? as usize);
        let (name, rest) = rest.split_at_checked(name_len.checked_next_multiple_of(4)?)?;
        if word(8)? == NT_GNU_BUILD_ID && name == b"GNU\0" && value_len > 0 {
            let value = rest.get(..value_len)?;
            let mut id = [0; ID_BYTES];
            let len = value.len().min(ID_BYTES);
            id[..len].copy_from_slice(&value[..len]);
            return Some(id);
        }
        notes = rest.get(value_len.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_program_comes_back() {
        let here = an_address_of_this_program_comes_back as fn();
        for program in [Program::Same, Program::Other] {
            let pointer = CodePointer::new(here as usize, program).unwrap();
            assert_eq!(pointer.resolve(), Some(here as usize));
        }
    }

    #[test]
    fn a_function_of_a_library_comes_back() {
        let address = libc::getpid as *const () as usize;
        let pointer = CodePointer::new(address, Program::Same).unwrap();
        assert_eq!(pointer.resolve(), Some(address));
    }

    #[test]
    fn data_and_foreign_addresses_are_no_code() {
        static DATA: u64 = 7;
        let heap = Box::new(1);
        for address in [&raw const DATA as usize, &raw const *heap as usize, 0, usize::MAX] {
            assert_eq!(CodePointer::new(address, Program::Same), None, "{address:#x}");
        }
    }

    #[test]
    fn an_offset_outside_of_the_code_is_refused() {
        let here = an_offset_outside_of_the_code_is_refused as fn() as usize;
        let pointer = CodePointer::new(here, Program::Same).unwrap();
        assert_eq!(CodePointer { offset: u64::MAX, ..pointer }.resolve(), None);
        assert_eq!(CodePointer { image: ImageId::Build([7; ID_BYTES]), ..pointer }.resolve(), None);
        assert_eq!(CodePointer { image: ImageId::Code(7), ..pointer }.resolve(), None);
    }

    #[test]
    fn the_code_itself_is_an_identity() {
        let hashed = main().hashed().unwrap();
        let other = Image { hash: OnceLock::new(), ..main().clone() };
        assert_eq!(other.hashed(), Some(hashed));
        let mut shorter = other;
        shorter.hash = OnceLock::new();
        shorter.code[0].addresses.end -= 1;
        assert_ne!(shorter.hashed(), Some(hashed));
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes_and_never_outside_of_them() {
        let note = |kind: u32, name: &[u8; 4], value: &[u8]| {
            let mut bytes = [4, u32::try_from(value.len()).unwrap(), kind].map(u32::to_ne_bytes).concat();
            bytes.extend(name);
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let notes = [note(1, b"GNU\0", b"abi"), note(3, b"GNU\0", b"12345678")].concat();
        let mut wanted = [0; ID_BYTES];
        wanted[..8].copy_from_slice(b"12345678");
        assert_eq!(build_id(&notes), Some(wanted));
        for len in 0..notes.len() {
            assert_eq!(build_id(&notes[..len]), None, "{len}");
        }
        assert_eq!(build_id(&[0xFF; 64]), None);
    }
}
