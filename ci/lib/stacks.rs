//! Stacks that are used again: a library to be preloaded under the models.
//!
//! loom maps, guards and unmaps a stack for each thread of each execution, which is half of a model's time, all of it the kernel's.
//! Whoever unmaps a stack here leaves it for the next one of its length, with its guard. Everything else goes to the C library.

use std::ffi::{c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mapping that was asked for as a stack.
#[derive(Clone, Copy)]
struct Stack {
    address: usize,
    len_bytes: usize,
    is_used: bool,
    is_guarded: bool,
}

/// A model has a handful of threads; beyond these, stacks come from the kernel.
static STACKS: Mutex<[Option<Stack>; 32]> = Mutex::new([None; 32]);

fn stacks() -> MutexGuard<'static, [Option<Stack>; 32]> {
    STACKS.lock().unwrap_or_else(PoisonError::into_inner)
}

const PROT_NONE: c_int = 0;
/// Linux's, the same on every architecture with a rustup target but MIPS and SPARC.
const MAP_STACK: c_int = 0x2_0000;
const MAP_FAILED: usize = usize::MAX;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The C library's function of this name.
fn next(name: &std::ffi::CStr) -> *mut c_void {
    // `RTLD_NEXT`.
    let handle = std::ptr::without_provenance_mut(usize::MAX);
    // SAFETY: a name that ends with 0.
    unsafe { dlsym(handle, name.as_ptr()) }
}

type Map = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
type Protect = unsafe extern "C" fn(*mut c_void, usize, c_int) -> c_int;
type Unmap = unsafe extern "C" fn(*mut c_void, usize) -> c_int;

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    place: *mut c_void,
    len_bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let is_stack = place.is_null() && flags & MAP_STACK != 0;
    if is_stack {
        let is_free = |stack: &&mut Stack| !stack.is_used && stack.len_bytes == len_bytes;
        if let Some(stack) = stacks().iter_mut().flatten().find(is_free) {
            stack.is_used = true;
            return std::ptr::with_exposed_provenance_mut(stack.address);
        }
    }
    // SAFETY: the C library's own function.
    let real: Map = unsafe { std::mem::transmute(next(c"mmap")) };
    // SAFETY: the caller's promise.
    let mapped = unsafe { real(place, len_bytes, protection, flags, fd, offset) };
    let address = mapped.expose_provenance();
    if is_stack && address != MAP_FAILED {
        if let Some(free) = stacks().iter_mut().find(|stack| stack.is_none()) {
            *free = Some(Stack { address, len_bytes, is_used: true, is_guarded: false });
        }
    }
    mapped
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mprotect(place: *mut c_void, len_bytes: usize, protection: c_int) -> c_int {
    let is_it = |stack: &&mut Stack| stack.address == place.addr() && protection == PROT_NONE;
    if let Some(stack) = stacks().iter_mut().flatten().find(is_it) {
        if stack.is_guarded {
            return 0;
        }
        stack.is_guarded = true;
    }
    // SAFETY: the C library's own function.
    let real: Protect = unsafe { std::mem::transmute(next(c"mprotect")) };
    // SAFETY: the caller's promise.
    unsafe { real(place, len_bytes, protection) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(place: *mut c_void, len_bytes: usize) -> c_int {
    let is_it = |stack: &&mut Stack| stack.address == place.addr() && stack.len_bytes == len_bytes;
    if let Some(stack) = stacks().iter_mut().flatten().find(is_it) {
        stack.is_used = false;
        return 0;
    }
    // SAFETY: the C library's own function.
    let real: Unmap = unsafe { std::mem::transmute(next(c"munmap")) };
    // SAFETY: the caller's promise.
    unsafe { real(place, len_bytes) }
}
