//! The functions of NCCL that are used, as `nccl.h` declares them from version 2.14 on.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use qlaunch_shared::{Error, Result};

use crate::libraries::Loaded;

pub(super) type Status = c_int;
pub(super) type Handle = *mut c_void;
pub(super) type Stream = *mut c_void;

/// `ncclSuccess`.
pub(super) const SUCCESS: Status = 0;
/// `ncclInProgress`: a call that does not block goes on.
pub(super) const IN_PROGRESS: Status = 7;
/// `ncclUint8`.
pub(super) const BYTES: c_int = 1;
/// Bytes of an id that only one communicator has.
pub(super) const ID: usize = 128;

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId(pub(super) [u8; ID]);

/// `ncclConfig_t` of version 2.14; later versions read what `size` says and take their defaults for the rest.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

impl Config {
    pub(super) const fn without_blocking() -> Self {
        Self { size: size_of::<Self>(), magic: 0xcafe_beef, version: 21_400, blocking: 0 }
    }
}

/// The library's functions.
pub(super) struct Api {
    pub(super) unique_id: extern "C" fn(*mut UniqueId) -> Status,
    pub(super) init: extern "C" fn(*mut Handle, c_int, UniqueId, c_int, *mut Config) -> Status,
    pub(super) async_error: extern "C" fn(Handle, *mut Status) -> Status,
    pub(super) finalize: extern "C" fn(Handle) -> Status,
    pub(super) destroy: extern "C" fn(Handle) -> Status,
    pub(super) abort: extern "C" fn(Handle) -> Status,
    pub(super) send: extern "C" fn(*const c_void, usize, c_int, c_int, Handle, Stream) -> Status,
    pub(super) recv: extern "C" fn(*mut c_void, usize, c_int, c_int, Handle, Stream) -> Status,
    error_string: extern "C" fn(Status) -> *const c_char,
}

impl Api {
    pub(super) fn of(library: &Loaded) -> Result<Self> {
        // SAFETY: types are those of `nccl.h`, and a library is never unloaded.
        unsafe {
            Ok(Self {
                unique_id: library.function("ncclGetUniqueId")?,
                init: library.function("ncclCommInitRankConfig")?,
                async_error: library.function("ncclCommGetAsyncError")?,
                finalize: library.function("ncclCommFinalize")?,
                destroy: library.function("ncclCommDestroy")?,
                abort: library.function("ncclCommAbort")?,
                send: library.function("ncclSend")?,
                recv: library.function("ncclRecv")?,
                error_string: library.function("ncclGetErrorString")?,
            })
        }
    }

    /// An error that says what the library says.
    pub(super) fn failure(&self, action: &str, status: Status) -> Error {
        let text = (self.error_string)(status);
        let said = if text.is_null() {
            "it does not say why".into()
        } else {
            // SAFETY: the library gives a text that ends with a zero and is never freed.
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        };
        Error::input(format!("{action} failed: {said} (NCCL error {status})"))
            .hint("run again with `NCCL_DEBUG=INFO`, which says more")
    }
}

/// The library's version, as in `2.27.3`.
pub fn version(library: &Loaded) -> Option<String> {
    // SAFETY: the type is that of `nccl.h`.
    let ask = unsafe { library.function::<extern "C" fn(*mut c_int) -> Status>("ncclGetVersion") }.ok()?;
    let mut version = 0;
    if ask(&raw mut version) != SUCCESS {
        return None;
    }
    // Before 2.9, minor versions had two digits less.
    let (major, rest) = if version >= 10_000 {
        (version / 10_000, version % 10_000)
    } else {
        (version / 1000, version % 1000)
    };
    Some(format!("{major}.{}.{}", rest / 100, rest % 100))
}
