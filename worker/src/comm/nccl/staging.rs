//! Memory of a GPU that messages pass through on their way between the host and NCCL.

use std::ffi::{c_int, c_uint, c_void};

use qlaunch_shared::{Error, Result};

use super::api::Stream;
use crate::libraries::Loaded;

type Status = c_int;
type Address = u64;
type Event = *mut c_void;

/// `CUDA_ERROR_NOT_READY`.
const NOT_READY: Status = 600;
/// `CU_STREAM_NON_BLOCKING`.
const OWN_STREAM: c_uint = 1;
/// `CU_EVENT_DISABLE_TIMING`.
const NO_CLOCK: c_uint = 2;

/// The functions of the driver that are used, as `cuda.h` declares them.
#[derive(Clone, Copy)]
struct Api {
    set_current: extern "C" fn(*mut c_void) -> Status,
    allocate: extern "C" fn(*mut Address, usize) -> Status,
    free: extern "C" fn(Address) -> Status,
    to_device: extern "C" fn(Address, *const c_void, usize) -> Status,
    to_host: extern "C" fn(*mut c_void, Address, usize) -> Status,
    event_create: extern "C" fn(*mut Event, c_uint) -> Status,
    event_record: extern "C" fn(Event, Stream) -> Status,
    event_query: extern "C" fn(Event) -> Status,
    event_destroy: extern "C" fn(Event) -> Status,
}

/// One GPU, its context and a stream for messages.
pub(super) struct Staging {
    api: Api,
    context: *mut c_void,
    pub(super) stream: Stream,
}

// SAFETY: contexts and streams of the driver may be used from any thread; each call makes the context current first.
unsafe impl Send for Staging {}
// SAFETY: as above; the driver locks what it shares.
unsafe impl Sync for Staging {}

/// A message in the GPU's memory, and the moment from which on nobody uses it.
pub(super) struct Buffer {
    api: Api,
    pub(super) address: Address,
    pub(super) bytes: usize,
    event: Event,
}

// SAFETY: addresses and events of the driver may be used from any thread.
unsafe impl Send for Buffer {}

fn check(action: &str, status: Status) -> Result<()> {
    match status {
        0 => Ok(()),
        _ => Err(Error::input(format!("{action} failed (CUDA error {status})"))
            .hint("look at `nvidia-smi`: the GPU's memory may be full")),
    }
}

impl Staging {
    /// Opens a GPU by its number.
    pub(super) fn open(cuda: &Loaded, device: i32) -> Result<Self> {
        // SAFETY: types are those of `cuda.h`, and a library is never unloaded.
        let (api, init, get, retain, create) = unsafe {
            let api = Api {
                set_current: cuda.function("cuCtxSetCurrent")?,
                allocate: cuda.function("cuMemAlloc_v2")?,
                free: cuda.function("cuMemFree_v2")?,
                to_device: cuda.function("cuMemcpyHtoD_v2")?,
                to_host: cuda.function("cuMemcpyDtoH_v2")?,
                event_create: cuda.function("cuEventCreate")?,
                event_record: cuda.function("cuEventRecord")?,
                event_query: cuda.function("cuEventQuery")?,
                event_destroy: cuda.function("cuEventDestroy_v2")?,
            };
            (
                api,
                cuda.function::<extern "C" fn(c_uint) -> Status>("cuInit")?,
                cuda.function::<extern "C" fn(*mut c_int, c_int) -> Status>("cuDeviceGet")?,
                cuda.function::<extern "C" fn(*mut *mut c_void, c_int) -> Status>(
                    "cuDevicePrimaryCtxRetain",
                )?,
                cuda.function::<extern "C" fn(*mut Stream, c_uint) -> Status>("cuStreamCreate")?,
            )
        };
        let (mut own, mut context, mut stream) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        check("starting CUDA", init(0))?;
        check("opening the GPU", get(&raw mut own, device))?;
        check("using the GPU", retain(&raw mut context, own))?;
        check("using the GPU", (api.set_current)(context))?;
        check("making a stream", create(&raw mut stream, OWN_STREAM))?;
        Ok(Self { api, context, stream })
    }

    /// Makes the GPU the one of this thread.
    pub(super) fn enter(&self) -> Result<()> {
        check("using the GPU", (self.api.set_current)(self.context))
    }

    /// Takes memory for a message.
    pub(super) fn buffer(&self, bytes: usize) -> Result<Buffer> {
        let (mut address, mut event) = (0, std::ptr::null_mut());
        // The driver has no memory of no bytes.
        check("taking memory of the GPU", (self.api.allocate)(&raw mut address, bytes.max(1)))?;
        let made = check("making an event", (self.api.event_create)(&raw mut event, NO_CLOCK));
        let buffer = Buffer { api: self.api, address, bytes, event };
        made.map(|()| buffer)
    }

    /// Notes that a message is in use until all that was asked for so far is done.
    pub(super) fn mark(&self, buffer: &Buffer) -> Result<()> {
        check("recording an event", (self.api.event_record)(buffer.event, self.stream))
    }
}

impl Buffer {
    /// Copies a message of the same length into it.
    pub(super) fn fill(&self, message: &[u8]) -> Result<()> {
        let length = message.len().min(self.bytes);
        check("copying to the GPU", (self.api.to_device)(self.address, message.as_ptr().cast(), length))
    }

    /// Copies the message out of it.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let mut message = vec![0u8; self.bytes];
        check(
            "copying from the GPU",
            (self.api.to_host)(message.as_mut_ptr().cast(), self.address, self.bytes),
        )?;
        Ok(message)
    }

    /// Whether nobody uses it any more.
    pub(super) fn is_done(&self) -> Result<bool> {
        match (self.api.event_query)(self.event) {
            NOT_READY => Ok(false),
            status => check("a transfer between GPUs", status).map(|()| true),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.event.is_null() {
            (self.api.event_destroy)(self.event);
        }
        // It waits for what still uses it.
        (self.api.free)(self.address);
    }
}
