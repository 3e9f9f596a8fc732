//! Single-stepping by the processor's trap flag, in the process itself.
//!
//! With the flag set the processor traps after every instruction, the kernel turns the trap into SIGTRAP and clears the
//! flag for the handler. The handler counts and strikes (a [`Control`]) or takes pictures (a [`Camera`]); it makes no
//! call that is not async-signal-safe and touches nothing of the operation's but to read it.
//!
//! About 1.3 us a step. `rep movsb` is a step for each byte: use small payloads. Lazy binding would add some 1,400 steps
//! to the first call of each function: Rust links with `-z now`, so there is none.

use core::sync::atomic::{AtomicPtr, Ordering::SeqCst};
use std::io;

use crate::control::Control;
use crate::pairs::Camera;

static CONTROL: AtomicPtr<Control> = AtomicPtr::new(core::ptr::null_mut());
static CAMERA: AtomicPtr<Camera> = AtomicPtr::new(core::ptr::null_mut());

/// Runs `operation` under single-stepping; after each instruction `control` counts, and strikes where it was told to.
pub fn under_knife<R>(control: &Control, operation: impl FnOnce() -> R) -> R {
    CONTROL.store(core::ptr::from_ref(control).cast_mut(), SeqCst);
    let result = stepped(operation);
    CONTROL.store(core::ptr::null_mut(), SeqCst);
    result
}

/// Puts this thread under single-stepping, until [`end`] or its process's end: for what does not lie in one function.
pub fn begin(control: &'static Control) {
    CONTROL.store(core::ptr::from_ref(control).cast_mut(), SeqCst);
    install();
    // SAFETY: as in `stepped`.
    unsafe { core::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
}

/// Ends what [`begin`] began.
pub fn end() {
    // SAFETY: as in `stepped`.
    unsafe { core::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
    CONTROL.store(core::ptr::null_mut(), SeqCst);
}

/// Runs `operation` under single-stepping; `camera` takes a picture after each instruction that changed its memory.
pub(crate) fn on_film<R>(camera: &mut Camera, operation: impl FnOnce() -> R) -> R {
    CAMERA.store(camera, SeqCst);
    let result = stepped(operation);
    CAMERA.store(core::ptr::null_mut(), SeqCst);
    result
}

/// Sets the flag, runs `operation`, clears the flag; also when `operation` unwinds.
fn stepped<R>(operation: impl FnOnce() -> R) -> R {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            // SAFETY: changes the trap flag only. Without `nostack`, so the compiler keeps nothing below the stack
            // pointer.
            unsafe { core::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
        }
    }
    install();
    let off = Off;
    // SAFETY: as in `Off`; the handler for the traps that follow is installed.
    unsafe { core::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = operation();
    drop(off);
    result
}

fn install() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_trap;
    // SAFETY: all zero is a valid sigaction: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe; nobody else handles SIGTRAP here.
    let done = unsafe { libc::sigaction(libc::SIGTRAP, &action, core::ptr::null_mut()) };
    assert_eq!(done, 0, "sigaction: {}", io::Error::last_os_error());
}

extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a ucontext to a handler with SA_SIGINFO.
    let rip = unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    // SAFETY: null, or a control that outlives the stepping (`under_knife` borrows it, `begin` for ever).
    if let Some(control) = unsafe { CONTROL.load(SeqCst).as_ref() } {
        control.step(rip.cast_unsigned());
    }
    // SAFETY: null, or a camera that `on_film` borrows mutably while it steps: the handler is its only user.
    if let Some(camera) = unsafe { CAMERA.load(SeqCst).as_mut() } {
        camera.look(rip.cast_unsigned());
    }
}

/// The code at `rip` of this process (and so of its forked children) in words: the file, the offset in it as linked,
/// and the source line where binutils is installed.
#[must_use]
pub fn source_line(rip: u64) -> String {
    let Some((path, offset)) = image_offset(rip) else {
        return format!("{rip:#x}");
    };
    let frames = std::process::Command::new("addr2line")
        .args(["-C", "-f", "-i", "-p", "-e", &path, &format!("{offset:#x}")])
        .output()
        .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
        .unwrap_or_default();
    // The innermost frame that is not the standard library's.
    let frame = frames.lines().find(|frame| !frame.contains("/library/core/")).unwrap_or_default();
    let frame = frame.trim_start_matches(" (inlined by) ");
    format!("{}+{offset:#x} {frame}", path.rsplit('/').next().unwrap_or_default())
}

fn image_offset(rip: u64) -> Option<(String, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut image: Option<(String, u64)> = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let path = words.nth(4).unwrap_or_default();
        if image.as_ref().is_none_or(|(last, _)| last != path) {
            image = Some((path.to_string(), from));
        }
        if (from..to).contains(&rip) {
            return image.map(|(path, base)| (path, rip - base));
        }
    }
    None
}
