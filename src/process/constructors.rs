//! The constructors of the image that stand behind ours.
//!
//! A child that starts before `main` never returns from its entry of `.init_array`. Those behind it (C++ statics, crates
//! that collect things before `main`) are the program's too, so it runs them first, in their order.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use super::image::{self, Image};

/// An entry of `.init_array`, as glibc calls it.
pub(crate) type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

const DT_NULL: usize = 0;
const DT_INIT_ARRAY: usize = 25;
const DT_INIT_ARRAYSZ: usize = 27;

/// What constructors are called with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arguments {
    pub(crate) argc: c_int,
    pub(crate) argv: *const *const c_char,
    pub(crate) envp: *const *const c_char,
}

/// Runs the constructors behind the entry at `own` of its image's array.
///
/// # Safety
/// Called by that entry, with its arguments, which is then not left.
pub(crate) unsafe fn run_behind(own: &'static Constructor, arguments: Arguments) {
    let code = *own as usize;
    let Some(image) = image::find(|image| image.has(code)) else { return };
    // SAFETY: a loaded image.
    let Some((first, count)) = (unsafe { array(&image) }) else { return };
    let own: *const Constructor = own;
    let Some(index) = (own as usize).checked_sub(first).map(|distance| distance / size_of::<Constructor>()) else {
        return;
    };
    for behind in index + 1..count {
        let entry = std::ptr::with_exposed_provenance::<usize>(first + behind * size_of::<Constructor>());
        // SAFETY: inside the array, which the loader has relocated.
        let address = unsafe { entry.read() };
        // Both are what linkers leave for nothing.
        if address != 0 && address != usize::MAX {
            let constructor = std::ptr::with_exposed_provenance::<()>(address);
            // SAFETY: what stands in this array is a constructor.
            let constructor = unsafe { std::mem::transmute::<*const (), Constructor>(constructor) };
            // SAFETY: in its turn, once, with what the loader would pass.
            unsafe { constructor(arguments.argc, arguments.argv, arguments.envp) };
        }
    }
}

/// Address and number of the entries of the image's `.init_array`.
///
/// # Safety
/// The image is loaded.
unsafe fn array(image: &Image) -> Option<(usize, usize)> {
    let mut entry = std::ptr::with_exposed_provenance::<[usize; 2]>(image.dynamic?);
    let (mut start, mut len_bytes) = (None, 0);
    loop {
        // SAFETY: the dynamic section is readable, and ends with a null entry.
        let [tag, value] = unsafe { entry.read() };
        match tag {
            DT_NULL => break,
            DT_INIT_ARRAY => start = Some(image.address(value)),
            DT_INIT_ARRAYSZ => len_bytes = value,
            _ => {}
        }
        // SAFETY: as above.
        entry = unsafe { entry.add(1) };
    }
    Some((start?, len_bytes / size_of::<Constructor>()))
}
