//! Ways to a GPU and from it beside its computing: a stream for each direction, and for each two pieces of pinned memory that take
//! turns. Events order what would else overtake each other: a piece is filled when its last copy is done, the computing stream waits
//! for what it is about to read, and memory is given back behind everything that was asked of it.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, PinnedHostSlice};
use qlaunch_shared::Result;
use rayon::prelude::*;

use super::errors;

/// Bytes of a piece of pinned memory.
pub(super) const PIECE: usize = 16 << 20;
/// Bytes that one thread copies into it at a time.
const STRETCH: usize = 1 << 20;
/// The host writes what goes to the GPU and never reads it; what comes from there it reads.
const WRITTEN_ONLY: u32 = cudarc::driver::sys::CU_MEMHOSTALLOC_WRITECOMBINED;
const READ: u32 = 0;

/// A moment in the order of a stream; none is before everything.
#[derive(Debug, Default)]
pub struct Moment(Option<CudaEvent>);

impl Moment {
    /// Behind everything that a stream was asked for so far.
    pub(super) fn now(stream: &CudaStream) -> Result<Self> {
        stream.record_event(None).map(|event| Self(Some(event))).map_err(failed)
    }

    /// What a stream is asked for from here on begins behind this moment.
    pub(super) fn holds(&self, stream: &CudaStream) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |event| stream.wait(event).map_err(failed))
    }

    /// Waits until it is there.
    fn pass(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |event| event.synchronize().map_err(failed))
    }
}

/// Memory of a GPU. It is given back in the order of the stream that it comes from.
#[derive(Debug)]
pub(super) struct Memory {
    slice: CudaSlice<u8>,
    /// Where it came over a lane: the stream that computes with it.
    computing: Option<Arc<CudaStream>>,
}

impl Memory {
    /// Memory that came over a lane, for a stream that computes with it.
    pub(super) fn brought(slice: CudaSlice<u8>, computing: &Arc<CudaStream>) -> Self {
        Self { slice, computing: Some(Arc::clone(computing)) }
    }
}

impl From<CudaSlice<u8>> for Memory {
    fn from(slice: CudaSlice<u8>) -> Self {
        Self { slice, computing: None }
    }
}

impl Deref for Memory {
    type Target = CudaSlice<u8>;

    fn deref(&self) -> &CudaSlice<u8> {
        &self.slice
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Some(computing) = &self.computing else { return };
        // The lane's stream gives it back, and would do so while it is still read.
        if let Err(error) = self.slice.stream().join(computing) {
            tracing::debug!("a GPU's streams do not wait for each other any more: {error}");
            // A stream that fails here has failed before, where somebody was told.
            let _ = computing.synchronize();
        }
    }
}

/// A stream that copies, and the pinned memory that copies go through.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) stream: Arc<CudaStream>,
    flags: u32,
    pieces: Mutex<Vec<Piece>>,
}

/// A piece of pinned memory, and the moment from which on no copy uses it.
#[derive(Debug)]
struct Piece {
    memory: PinnedHostSlice<u8>,
    done: Moment,
}

impl Piece {
    /// Its bytes, once nobody uses them any more.
    fn bytes(&mut self) -> Result<&mut [u8]> {
        self.done.pass()?;
        self.memory.as_mut_slice().map_err(failed)
    }
}

impl Lane {
    /// A way to a GPU.
    pub(super) fn inwards(context: &Arc<CudaContext>) -> Result<Self> {
        Self::new(context, WRITTEN_ONLY)
    }

    /// A way from a GPU.
    pub(super) fn outwards(context: &Arc<CudaContext>) -> Result<Self> {
        Self::new(context, READ)
    }

    fn new(context: &Arc<CudaContext>, flags: u32) -> Result<Self> {
        let stream = context.new_stream().map_err(|error| errors::driver("make a stream", error))?;
        Ok(Self { stream, flags, pieces: Mutex::default() })
    }

    /// Memory in the order of this lane, not set.
    pub(super) fn room(&self, count: usize) -> Result<CudaSlice<u8>> {
        // SAFETY: whoever asks for room writes all of it before anybody reads it.
        unsafe { self.stream.alloc::<u8>(count.max(1)) }.map_err(|error| errors::driver("find memory", error))
    }

    /// Copies bytes to the GPU, on the rayon pool that it is called in. They are there for another stream when it has waited for a
    /// [`Lane::moment`] behind this call.
    pub(super) fn bring(&self, bytes: &[u8]) -> Result<CudaSlice<u8>> {
        let mut room = self.room(bytes.len())?;
        self.with_pieces(|pieces| {
            for (at, part) in bytes.chunks(PIECE).enumerate() {
                // The last one has rested longest.
                pieces.rotate_right(1);
                let piece = &mut pieces[0];
                let filled = &mut piece.bytes()?[..part.len()];
                let stretches = filled.par_chunks_mut(STRETCH).zip(part.par_chunks(STRETCH));
                stretches.for_each(|(to, from)| to.copy_from_slice(from));
                let mut place = room.slice_mut(at * PIECE..at * PIECE + part.len());
                self.stream.memcpy_htod(filled, &mut place).map_err(failed)?;
                piece.done = self.moment()?;
            }
            Ok(())
        })?;
        Ok(room)
    }

    /// Copies the first bytes of memory of the GPU, as they are at a moment, while it computes on.
    pub(super) fn take(&self, memory: &Memory, count: usize, since: &Moment) -> Result<Vec<u8>> {
        since.holds(&self.stream)?;
        let mut bytes = vec![0; count];
        self.with_pieces(|pieces| {
            let mut waiting: Option<&mut [u8]> = None;
            for (at, part) in bytes.chunks_mut(PIECE).enumerate() {
                pieces.rotate_right(1);
                let piece = &mut pieces[0];
                let length = part.len();
                let place = memory.slice.slice(at * PIECE..at * PIECE + length);
                self.stream.memcpy_dtoh(&place, &mut piece.bytes()?[..length]).map_err(failed)?;
                piece.done = self.moment()?;
                // The piece before this one is read while this one is filled.
                if let Some(before) = waiting.replace(part) {
                    let length = before.len();
                    before.copy_from_slice(&pieces[1].bytes()?[..length]);
                }
            }
            if let Some(last) = waiting {
                let length = last.len();
                last.copy_from_slice(&pieces[0].bytes()?[..length]);
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Behind everything that was copied so far.
    pub(super) fn moment(&self) -> Result<Moment> {
        Moment::now(&self.stream)
    }

    /// Waits until everything is copied.
    pub(super) fn finish(&self) -> Result<()> {
        self.stream.synchronize().map_err(failed)
    }

    /// Does something with the two pieces, which are taken when they are first wanted.
    fn with_pieces(&self, what: impl FnOnce(&mut [Piece]) -> Result<()>) -> Result<()> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        while pieces.len() < 2 {
            // SAFETY: it is read only behind a copy that has filled it.
            let memory = unsafe { self.stream.context().alloc_pinned_with_flags::<u8>(PIECE, self.flags) };
            let memory = memory.map_err(|error| errors::driver("pin memory of the host", error))?;
            pieces.push(Piece { memory, done: Moment::default() });
        }
        what(&mut pieces)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Pinned memory goes when nobody reads or writes it any more. A failure has been told before.
        let _ = self.finish();
    }
}

fn failed(error: cudarc::driver::DriverError) -> qlaunch_shared::Error {
    errors::driver("copy", error)
}
