//! The simulator's hold on the two things of the C library that no seam reaches: randomness and clocks.
//!
//! **Owns** definitions of `getrandom` and `clock_gettime`. A binary that links this crate gets them instead of the C
//! library's, in our code and in everybody else's: hash map seeds, `rand::rng()` in dependencies, `Instant::now()` in tokio.
//! Until a thread is [`arm`]ed they pass everything on to the kernel, and other threads are never touched.
//!
//! **Must never** be linked into anything but simulator and test binaries, nor grow: it is the only crate of ours with
//! unsafe code, which is here because defining a C function and writing through its pointers cannot be had without.
//! What it does not reach: code that makes system calls itself (*ring* does, for keys and TLS), so nothing that comes from
//! there may show in a trace.
#![allow(unsafe_code)] // see above

use std::cell::Cell;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    /// State of the generator (SplitMix64).
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    /// What the clocks say, in nanoseconds: the monotonic ones, and the one since 1970.
    static MONOTONIC: Cell<u64> = const { Cell::new(0) };
    static UNIX: Cell<u64> = const { Cell::new(0) };
}

/// From now on this thread's randomness follows from the seed, and its clocks stand at zero until they are [`set_clocks`].
pub fn arm(seed: u64) {
    RANDOM.set(seed ^ 0x9e37_79b9_7f4a_7c15);
    set_clocks(0, 0);
    ARMED.set(true);
}

/// This thread sees the kernel's randomness and clocks again.
pub fn disarm() {
    ARMED.set(false);
}

/// What this thread's clocks say from now on, in nanoseconds: `CLOCK_MONOTONIC` and its like, and `CLOCK_REALTIME`. The
/// monotonic one must not go back.
pub fn set_clocks(monotonic_ns: u64, unix_ns: u64) {
    MONOTONIC.set(monotonic_ns);
    UNIX.set(unix_ns);
}

fn next() -> u64 {
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// True while the thread is armed. A thread that is being torn down has no state any more, and is not.
fn armed() -> bool {
    ARMED.try_with(Cell::get).unwrap_or(false)
}

/// Replaces the C library's.
///
/// # Safety
/// As the C library's: `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if !armed() {
        // SAFETY: the kernel checks the pointer itself; the arguments are the caller's.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t };
    }
    // SAFETY: the caller promises `length` writable bytes; a null pointer is only allowed with none.
    let buffer =
        if length == 0 { &mut [][..] } else { unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) } };
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    length as libc::ssize_t
}

/// Replaces the C library's.
///
/// # Safety
/// As the C library's: `time` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let virtual_ns = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => &UNIX,
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_BOOTTIME => {
            &MONOTONIC
        }
        // Processor time is nobody's business in a simulation, and harmless.
        _ => return unsafe { real_clock(clock, time) },
    };
    if !armed() {
        // SAFETY: passed on as it came.
        return unsafe { real_clock(clock, time) };
    }
    let ns = virtual_ns.get();
    let value =
        libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long };
    // SAFETY: the caller promises a valid pointer.
    unsafe { time.write(value) };
    0
}

/// # Safety
/// As `clock_gettime`.
unsafe fn real_clock(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the kernel checks the pointer itself.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}
