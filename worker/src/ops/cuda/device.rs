//! One GPU: found, opened, its kernels loaded; memory and launches on one stream.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};

use super::errors;
use super::kernels::{Image, NAMES, TYPES, image};
use super::lanes::{Lane, Moment};
use super::pool::Pool;
use super::product::Blas;
use super::tensor::CudaTensor;
use crate::libraries::{Places, Wanted, require};
use crate::ops::operands;
use crate::tensor::DType;

/// Threads of a block where a kernel walks over elements.
pub(super) const THREADS: u32 = 256;

/// Brings the libraries in that a GPU is computed on with: the driver and cuBLASLt, wherever they are found.
///
/// # Errors
/// One is missing or broken.
pub fn load(places: &Places) -> Result<()> {
    // They stay loaded, so that whoever asks for their names from now on gets these.
    require(&Wanted::CUDA, places)?;
    require(&Wanted::CUBLAS_LT, places)?;
    // SAFETY: it only asks the loader whether the libraries can be opened.
    let (driver, blas) =
        unsafe { (cudarc::driver::sys::is_culib_present(), cudarc::cublaslt::sys::is_culib_present()) };
    for (there, wanted) in [(driver, Wanted::CUDA), (blas, Wanted::CUBLAS_LT)] {
        if !there {
            let unknown = format!("{} was loaded, and is not known by its name", wanted.name);
            return Err(Error::input(unknown)
                .hint(format!("set `{}` to a file called {}", wanted.variable, wanted.files[0])));
        }
    }
    Ok(())
}

/// One value that a kernel is given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// An address in the GPU's memory.
    Address(u64),
    /// A size or count.
    U64(u64),
    /// A small one.
    U32(u32),
    /// A number.
    F32(f32),
}

/// One GPU.
pub(super) struct Device {
    context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    pub(super) inwards: Lane,
    pub(super) outwards: Lane,
    functions: HashMap<String, CudaFunction>,
    pub(super) blas: Blas,
    pool: Option<Pool>,
    pub(super) numeric_path: NumericPath,
}

impl Device {
    /// Opens a GPU by number, with the libraries that [`load`] finds.
    pub(super) fn open(ordinal: usize, places: &Places) -> Result<Self> {
        load(places)?;
        let context = CudaContext::new(ordinal).map_err(|error| errors::driver("be opened", error))?;
        // SAFETY: what computes runs on one stream, whose order is the order of the calls; lanes see to their own events.
        unsafe { context.disable_event_tracking() };
        let capability =
            context.compute_capability().map_err(|error| errors::driver("tell its generation", error))?;
        let (major, minor) = capability;
        let numeric_path = NumericPath::of_capability(10 * major + minor);
        let (Some(image), Some(numeric_path)) = (image(capability), numeric_path) else {
            return Err(Error::input(format!("GPU {ordinal} has compute capability {major}.{minor}"))
                .hint("GPUs from 8.0 on are served; `--device cpu` computes on the CPU"));
        };
        let image = match image {
            Image::Cubin(code) => Ptx::from_binary(code.to_vec()),
            Image::Ptx(text) => Ptx::from_src(text),
        };
        let module = context.load_module(image).map_err(|error| errors::driver("load our kernels", error))?;
        let mut functions = HashMap::new();
        for name in NAMES.iter().flat_map(|name| TYPES.map(|kind| format!("{name}_{kind}"))) {
            let function =
                module.load_function(&name).map_err(|error| errors::driver("load our kernels", error))?;
            functions.insert(name, function);
        }
        let pool = Pool::of(&context);
        let stream = context.new_stream().map_err(|error| errors::driver("make a stream", error))?;
        let blas = Blas::new(&stream)?;
        let (inwards, outwards) = (Lane::inwards(&context)?, Lane::outwards(&context)?);
        Ok(Self { context, stream, inwards, outwards, functions, blas, pool, numeric_path })
    }

    /// Room for a tensor whose elements are not set.
    pub(super) fn room(&self, dtype: DType, shape: impl Into<Vec<usize>>) -> Result<CudaTensor> {
        let shape = shape.into();
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(CudaTensor { shape, dtype, data: Arc::new(self.bytes(bytes)?.into()) })
    }

    /// Bytes that are not set.
    pub(super) fn bytes(&self, count: usize) -> Result<CudaSlice<u8>> {
        // SAFETY: whoever asks for room writes all of it before anybody reads it.
        unsafe { self.stream.alloc::<u8>(count.max(1)) }.map_err(|error| errors::driver("find memory", error))
    }

    /// Copies numbers to the GPU.
    pub(super) fn send<T: cudarc::driver::DeviceRepr>(&self, values: &[T]) -> Result<CudaSlice<T>> {
        let failed = |error| errors::driver("take data", error);
        if values.is_empty() {
            // SAFETY: nothing is read from it.
            return unsafe { self.stream.alloc::<T>(1) }.map_err(failed);
        }
        self.stream.clone_htod(values).map_err(failed)
    }

    /// Copies numbers from the GPU, once everything before is done.
    pub(super) fn fetch<T: cudarc::driver::DeviceRepr>(&self, values: &CudaSlice<T>) -> Result<Vec<T>> {
        let failed = |error| errors::driver("give data back", error);
        let host = self.stream.clone_dtoh(values).map_err(failed)?;
        self.stream.synchronize().map_err(failed)?;
        Ok(host)
    }

    /// The same into a place of the same length.
    pub(super) fn fetch_into<T: cudarc::driver::DeviceRepr>(
        &self,
        values: &CudaSlice<T>,
        to: &mut [T],
    ) -> Result<()> {
        let failed = |error| errors::driver("give data back", error);
        self.stream.memcpy_dtoh(values, to).map_err(failed)?;
        self.stream.synchronize().map_err(failed)
    }

    /// Seconds that something takes, on average over so many runs behind a first one.
    pub(super) fn time(&self, runs: usize, mut queue: impl FnMut() -> Result<()>) -> Result<f64> {
        let wait = || self.stream.synchronize().map_err(|error| errors::driver("finish", error));
        queue()?;
        wait()?;
        let begun = std::time::Instant::now();
        (0..runs).try_for_each(|_| queue())?;
        wait()?;
        Ok(begun.elapsed().as_secs_f64() / runs.max(1) as f64)
    }

    /// A tensor for writing in place: a copy where somebody else has it too.
    pub(super) fn own<'a>(&self, tensor: &'a mut CudaTensor) -> Result<&'a mut CudaTensor> {
        if Arc::get_mut(&mut tensor.data).is_none() {
            let copy = self.stream.clone_dtod(&**tensor.data);
            tensor.data = Arc::new(copy.map_err(|error| errors::driver("copy", error))?.into());
        }
        Ok(tensor)
    }

    /// Behind everything that was queued so far.
    pub(super) fn moment(&self) -> Result<Moment> {
        Moment::now(&self.stream)
    }

    /// The address of a tensor, as a kernel's argument.
    pub(super) fn address(&self, tensor: &CudaTensor) -> Argument {
        self.address_of(&tensor.data)
    }

    /// The address of memory, as a kernel's argument.
    pub(super) fn address_of<T>(&self, memory: &CudaSlice<T>) -> Argument {
        Argument::Address(self.place_of(memory))
    }

    /// The address of memory. It stays valid for all that is queued while the memory lives: memory is given back in the
    /// order of the stream.
    pub(super) fn place_of<T>(&self, memory: &CudaSlice<T>) -> u64 {
        memory.device_ptr(&self.stream).0
    }

    /// Queues a kernel of a type on a grid of blocks.
    pub(super) fn launch(
        &self,
        kernel: (&str, DType),
        grid: ((usize, usize), u32),
        arguments: &[Argument],
    ) -> Result<()> {
        self.launch_on(&self.stream, kernel, grid, arguments)
    }

    /// The same on a stream.
    pub(super) fn launch_on(
        &self,
        stream: &Arc<CudaStream>,
        (name, dtype): (&str, DType),
        (blocks, threads): ((usize, usize), u32),
        arguments: &[Argument],
    ) -> Result<()> {
        let name = format!("{name}_{}", ending(dtype)?);
        let function =
            self.functions.get(&name).ok_or_else(|| Error::bug(format!("there is no kernel `{name}`")))?;
        if blocks.0 == 0 || blocks.1 == 0 {
            return Ok(());
        }
        let side = |count: usize| {
            u32::try_from(count).map_err(|_| operands::misfit(&name, format!("{count} blocks are too many")))
        };
        let grid = LaunchConfig {
            grid_dim: (side(blocks.0)?, side(blocks.1)?, 1),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = stream.launch_builder(function);
        for argument in arguments {
            match argument {
                Argument::Address(value) | Argument::U64(value) => launch.arg(value),
                Argument::U32(value) => launch.arg(value),
                Argument::F32(value) => launch.arg(value),
            };
        }
        // SAFETY: callers pass what the kernel's parameters say, and tensors of the sizes that they pass along.
        unsafe { launch.launch(grid) }.map_err(|error| errors::driver(&format!("start `{name}`"), error))?;
        Ok(())
    }

    /// Bytes that are free: what the driver has, and what our pool of memory has and does not use.
    pub(super) fn free_memory(&self) -> Result<u64> {
        self.bind()?;
        let failed = |error| errors::driver("tell its free memory", error);
        // Memory goes back to the driver when everything that was queued is done.
        self.stream.synchronize().map_err(failed)?;
        self.inwards.finish()?;
        let unused = self.pool.as_ref().map_or(Ok(0), Pool::unused).map_err(failed)?;
        self.context.mem_get_info().map(|(free, _)| free as u64 + unused).map_err(failed)
    }

    /// Makes the GPU the one that this thread talks to.
    pub(super) fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|error| errors::driver("be used from this thread", error))
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("numeric_path", &self.numeric_path).finish_non_exhaustive()
    }
}

/// How kernels of a type end.
fn ending(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        DType::F16 => Ok("f16"),
        other => Err(Error::bug(format!("no kernel computes in {other}"))),
    }
}
